/**
 * The rules of docs/protocol.md that can be switched off, for tests only: a mutation test turns
 * one off and asserts that the simulator finds the failure the rule prevents
 * (docs/guarantees.md, "Checks"). The shipped program always runs `ALL_RULES`; nothing in `cmd/`
 * can change them.
 */
export interface Rules {
  /** R1, R3: a restart is a new incarnation, not an intact member. */
  readonly incarnations: boolean;
  /** R7: a restarted voter accepts no view until its old grants have run out. */
  readonly voterWait: boolean;
  /** R3: new members must be in the promise set. */
  readonly promiseSet: boolean;
  /** R2: a promise seals older epochs (no append, ack or send of older records). */
  readonly seal: boolean;
  /** R2: a voter that promised a newer epoch gives no grant for an older one. */
  readonly noRenew: boolean;
  /** R4: a voter accepts only after its grants to excluded hosts have run out. */
  readonly acceptAfterGrants: boolean;
  /** R5: no I/O in a view before every recipient is ACTIVE. */
  readonly openBarrier: boolean;
  /** R5: continuing recipients make their tails equal before ACTIVE. */
  readonly reconcile: boolean;
  /** R6: joining hosts are in the commit set. */
  readonly joinersCommit: boolean;
  /** R6: a write is acknowledged only when all recipients have it. */
  readonly ackAfterCommit: boolean;
  /** R7: reads need unexpired grants. */
  readonly readGrants: boolean;
  /** R7: a read waits until the version it returns is committed. */
  readonly readCommitted: boolean;
  /** R8: FLUSH waits for all recipients' disks. */
  readonly flushEverywhere: boolean;
  /** R8: without a barrier, only what is known durable everywhere answers a FLUSH. */
  readonly flushKnown: boolean;
  /** R9b: a range changes hands only when its records are committed. */
  readonly yieldOnCommit: boolean;
  /** R9c: a receiver refuses or holds records whose grant its table does not show. */
  readonly checkGrant: boolean;
  /** R11: resync copies carry committed values only. */
  readonly copyCommitted: boolean;
  /** R11: a live write is never overwritten by a copy. */
  readonly liveWriteWins: boolean;
  /** R12: a cold start has one base, the others copy from it. */
  readonly oneBase: boolean;
  /** R14: a voter without its file asks the others before it votes. */
  readonly voterAmnesia: boolean;
  /** Store: a failed sync poisons it. */
  readonly poison: boolean;
  /** Store: bytes read are checked against their checksum and address. */
  readonly verifyReads: boolean;
}

export const ALL_RULES: Rules = {
  incarnations: true,
  voterWait: true,
  promiseSet: true,
  seal: true,
  noRenew: true,
  acceptAfterGrants: true,
  openBarrier: true,
  reconcile: true,
  joinersCommit: true,
  ackAfterCommit: true,
  readGrants: true,
  readCommitted: true,
  flushEverywhere: true,
  flushKnown: true,
  yieldOnCommit: true,
  checkGrant: true,
  copyCommitted: true,
  liveWriteWins: true,
  oneBase: true,
  voterAmnesia: true,
  poison: true,
  verifyReads: true,
};
