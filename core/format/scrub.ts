/** How far the scrub is: the document that the store keeps for itself (docs/store.md, "Scrub"). */
import { type Decoded, struct, u32, u64 } from "./codec.ts";

/** The store's own slot for documents; its owner has those below. Append only. */
export const SCRUB_SLOT = 15;

/** Times are milliseconds since 1970, 0 = never. Counts are of the store's whole life. */
export const SCRUB_STATE = struct({
  /** Where the pass at hand goes on; volume 0 = none is under way. */
  volume: u32,
  region: u32,
  /** 1: blocks known to be bad were forgotten, so passes go on without a pause. */
  isSearching: u32,
  /** Whole passes. */
  passes: u32,
  beganMs: u64,
  endedMs: u64,
  /** Blocks of the pass at hand, or of the last one. */
  passBlocks: u64,
  checkedBlocks: u64,
  badBlocks: u64,
});
export type ScrubState = Decoded<typeof SCRUB_STATE>;
