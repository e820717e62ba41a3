// Prints what our transactions cost, from the snapshot that the gas tests wrote, beside the floor and the peers.
// Peers and floor were measured in one setting: EVM version Prague, optimizer on, 10,000 accounts, a tree of depth 14,
// OpenZeppelin's ERC-20; base fee and calldata included.
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const ours = JSON.parse(readFileSync(join(here, "..", "snapshots", "GasTest.json"), "utf8"));
const gas = (...names) => names.map((name) => Number(ours[name]));
const per = (name, count) => Math.round(Number(ours[name]) / count);

const TABLES = [
  {
    title: "Claims",
    columns: ["first, no balance", "first, balance", "repeat"],
    ours: gas("claim first, no balance", "claim first, balance", "claim repeat"),
    bars: [95_500, 78_500, 61_500],
    peers: {
      floor: [86_357, 69_257, 52_157],
      "1inch": [91_505, 74_391, 57_339],
      Uniswap: [92_933, 75_881, 58_721],
      "Morpho URD": [94_159, 77_044, 59_950],
      Sablier: [98_975, 81_914, 64_784],
      "Lido CSM": [104_039, 86_975, 69_911],
      EigenLayer: [123_415, 106_317, 89_241],
      Merkl: [136_988, 119_890, 85_642],
      "Rocket Pool": [153_237, 136_197, 119_109],
    },
  },
  {
    title: "Batches, per account",
    columns: ["128 with one proof, first", "128 with one proof, repeat"],
    ours: [per("subtree of 128, first", 128), per("subtree of 128, repeat", 128)],
    bars: [null, 18_000],
    peers: { Merkl: [null, 50_228] },
  },
  {
    title: "Posting",
    columns: ["post", "activate", "both"],
    ours: [...gas("post", "activate"), Number(ours.post) + Number(ours.activate)],
    bars: [null, null, 120_000],
    peers: {},
  },
  {
    title: "Challenges",
    columns: ["decrease", "missing", "order", "malformed"],
    ours: gas("challengeDecrease", "challengeMissing", "challengeOrder", "challengeMalformed"),
    bars: [110_000, 110_000, 110_000, 110_000],
    peers: {},
  },
  {
    title: "Staking",
    columns: ["first", "more", "request", "withdraw"],
    ours: gas("stake first", "stake more", "requestUnstake", "withdraw"),
    bars: [70_500, 53_500, 58_500, 45_000],
    peers: {
      floor: [66_481, 49_381, 33_181, 41_801],
      "Aave Umbrella": [94_452, 77_352, 59_952, 84_777],
      HUMAN: [100_535, 56_000, 75_341, 49_676],
      Synthetix: [137_748, 106_393, null, 84_596],
      Tally: [182_224, 127_369, null, 110_179],
    },
  },
];

const show = (value, base) => {
  if (value === null) return "-";
  const ratio = base ? `  ${(value / base).toFixed(2)}x` : "";
  return value.toLocaleString("en") + ratio;
};
let above = 0;
for (const { title, columns, ours: mine, bars, peers } of TABLES) {
  const width = Math.max(18, ...columns.map((name) => name.length + 2));
  const line = (name, cells) => console.log(name.padEnd(16) + cells.map((cell) => cell.padStart(width)).join(""));
  console.log(`\n${title}`);
  line("gas", columns);
  line("Haptic", mine.map((value) => show(value)));
  line("at most", bars.map((value) => show(value)));
  for (const [name, values] of Object.entries(peers)) line(name, values.map((value, i) => show(value, mine[i])));
  above += mine.filter((value, i) => bars[i] !== null && value > bars[i]).length;
}
console.log("\nRatios are to Haptic's own figure.");
if (above > 0) {
  console.error(`${above} figures are above what they may be at most.`);
  process.exit(1);
}
