/** Every limit of a ZMTP connection, with its default. */
export interface ZmtpLimits {
  /** Bytes of one message over all its frames; more closes the connection. */
  readonly maxMessageBytes: number
  /** Frames of one message; more closes the connection. */
  readonly maxFrames: number
  /** Bytes of one command (READY, PING, SUBSCRIBE, …). */
  readonly maxCommandBytes: number
  /** Read from one connection before the event loop comes round again; a little more may follow. */
  readonly maxBytesPerTurn: number
  /** From the TCP connection (or the attempt at one) to the peer's READY. */
  readonly handshakeTimeoutMs: number
  /** Between two PINGs to a peer that speaks ZMTP 3.1; also the idle time before TCP keep-alive probes a 3.0 peer. */
  readonly pingEveryMs: number
  /** PINGs in a row after which nothing at all was received: the connection counts as lost. */
  readonly maxUnansweredPings: number
  /** First and longest pause before connecting again; each is shortened by up to half at random. */
  readonly reconnectFirstMs: number
  readonly reconnectMaxMs: number
  /** A connection that lasted this long starts the pauses anew. */
  readonly stableAfterMs: number
  /** How long a connection that is ended properly may take to send what is queued. */
  readonly lingerMs: number
  /** Connections that one listening socket keeps at once; further ones are closed. */
  readonly maxPeers: number
  /** Messages waiting in one peer's queue (ZeroMQ's high-water mark); further ones are dropped and counted. */
  readonly highWaterMarkMessages: number
  /** Topics that one subscriber may ask for. */
  readonly maxSubscriptions: number
}

export const zmtpLimits: ZmtpLimits = {
  maxMessageBytes: 64 * 1024 * 1024,
  maxFrames: 16,
  maxCommandBytes: 64 * 1024,
  maxBytesPerTurn: 128 * 1024,
  handshakeTimeoutMs: 5_000,
  pingEveryMs: 5_000,
  maxUnansweredPings: 3,
  reconnectFirstMs: 50,
  reconnectMaxMs: 1_000,
  stableAfterMs: 2_000,
  lingerMs: 1_000,
  maxPeers: 4_096,
  highWaterMarkMessages: 100_000,
  maxSubscriptions: 1_024,
}
