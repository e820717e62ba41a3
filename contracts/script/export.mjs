// Writes the ABI, the creation code and the words of the errors of each contract, as forge built them, to a folder (by default chain/abi).
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const CONTRACTS = ["DevnetDollar", "DevnetWallet", "EpochLedger", "HapticToken", "RevenueDistributor", "SignatureProbe", "StakeVault"];
const here = dirname(fileURLToPath(import.meta.url));

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

function exported(builtDir, contractName) {
  const artifact = JSON.parse(readFileSync(join(builtDir, `${contractName}.sol`, `${contractName}.json`), "utf8"));
  // What each custom error means, in the words of its NatSpec: `name` stands for the argument of that name.
  const errors = Object.entries(artifact.userdoc?.errors ?? {}).map(([signature, said]) => [signature, said[0].notice]);
  return { contractName, abi: artifact.abi, bytecode: artifact.bytecode.object, errors: Object.fromEntries(errors) };
}

const [builtDir = join(here, "..", "out"), targetDir = join(here, "..", "..", "chain", "abi")] = process.argv.slice(2);
mkdirSync(targetDir, { recursive: true });
for (const name of CONTRACTS) {
  writeFileSync(join(targetDir, `${name}.json`), `${JSON.stringify(sorted(exported(builtDir, name)), null, 2)}\n`);
}
