"""The demo: simulated judges with real wallets play the whole loop on the real service, chain and trainer."""
