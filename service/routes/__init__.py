"""The HTTP API, version 1: `contributor` is for wallets that rank, `public`, `epochs` and `models` for anybody."""
