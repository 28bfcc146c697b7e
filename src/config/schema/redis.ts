import Type from 'typebox'
import { shareTtlMs } from '../defaults.ts'
import { GiB, hourMs, integer, object, text } from './words.ts'

const node = (whose: string) =>
  text(`Address of ${whose}, HOST:PORT ([HOST]:PORT for IPv6).`, {
    pattern: '^(\\[[0-9a-fA-F:]+\\]|[^:\\s]+):\\d{1,5}$',
  })

const sentinel = object(
  {
    name: text('Name of the master.'),
    nodes: Type.Array(node('a Sentinel'), { minItems: 1, description: 'The Sentinels; name all of them.' }),
    username: Type.Optional(text('User at the Sentinels.')),
    password: Type.Optional(text('Password at the Sentinels, where they have their own.')),
  },
  { description: 'Redis with Sentinel; in place of `url`.' },
)

const cluster = object(
  {
    nodes: Type.Array(node('a node'), {
      minItems: 1,
      description: 'Nodes to ask for the one that holds the keys; name several.',
    }),
  },
  { description: 'Redis Cluster; in place of `url`. All keys share one hash tag, so one of its nodes holds them.' },
)

const tls = object(
  {
    ca: Type.Optional(text('File of CA certificates that sign Redis’; omitted: those that Node trusts.')),
    cert: Type.Optional(text('File of the certificate that the router shows.')),
    key: Type.Optional(text('File of that certificate’s private key.')),
    serverName: Type.Optional(text('Name that Redis’ certificate must bear; omitted: the host connected to.')),
    insecure: Type.Optional(
      Type.Boolean({ description: 'Take any certificate, so that anyone on the way can read along.', default: false }),
    ),
  },
  { description: 'TLS to Redis and its Sentinels; on with `rediss://` too.' },
)

export const redis = object(
  {
    // Its form is checked beside the schema, whose messages would repeat a password in it.
    url: Type.Optional(text('`redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, or `rediss://` for TLS.')),
    sentinel: Type.Optional(sentinel),
    cluster: Type.Optional(cluster),
    username: Type.Optional(text('ACL user; omitted: the one of the URL, or `default`.')),
    password: Type.Optional(text('Password; omitted: the one of the URL, or none.')),
    database: Type.Optional(
      integer('Number of the database; omitted: that of the URL, or 0. A cluster has only 0.', 0, 1_000_000),
    ),
    tls: Type.Optional(tls),
    prefix: Type.String({
      description: 'All keys begin with `{prefix}:`; replicas with the same one share their state.',
      pattern: '^[A-Za-z0-9._:-]{1,64}$',
      default: 'warmroute',
    }),
    required: Type.Boolean({
      description: 'Refuse to start while Redis cannot be used. Once started, its absence is never an error.',
      default: false,
    }),
    connectMs: integer('To connect and log in.', 10, 60_000, { default: 1000 }),
    commandMs: integer('For the answer to a command.', 10, 60_000, { default: 1000 }),
    heartbeatMs: integer('Between two looks at whether Redis still takes writes.', 10, 60_000, { default: 250 }),
    awayMs: integer('Without success for so long, Redis counts as away.', 10, hourMs, { default: 1000 }),
    commandsUnderWay: integer('Commands without an answer yet; further ones fail at once.', 16, 1_000_000, {
      default: 4096,
    }),
    leaseMs: integer('Life of a lease that is not renewed; it is renewed four times in this time.', 100, 60_000, {
      default: 1200,
    }),
    eventLog: Type.Boolean({
      description:
        'Each engine’s events are heard by one replica and reach the others through Redis; false: each replica hears every engine itself.',
      default: true,
    }),
    graceMs: integer(
      'For which a log that does not continue what is known of a worker is waited for, before its engine itself is asked.',
      0,
      60_000,
      { default: 1000 },
    ),
    fallbackMs: integer('Away for so long, every replica listens to the engines itself.', 0, hourMs, { default: 2000 }),
    markMs: integer(
      'Between two marks of the log’s writer, by which idle workers’ followers know where they are.',
      100,
      60_000,
      {
        default: 2000,
      },
    ),
    yieldMs: integer('Who has not heard a worker’s engine for so long lets another replica try.', 100, hourMs, {
      default: 3000,
    }),
    logEntries: integer('Entries kept in the log of events, about.', 1000, 100_000_000, { default: 100_000 }),
    logSeconds: integer('Older entries of the log go, about.', 1, 7 * 24 * 3600, { default: 300 }),
    entryBlocks: integer('Blocks gathered in one entry of the log at most.', 1, 1_000_000, { default: 256 }),
    bufferBytes: integer(
      'Events waiting for Redis; when more would, they are dropped and the replicas get them in other ways.',
      65_536,
      4 * GiB,
      { default: 16 * 1024 * 1024 },
    ),
    shareMs: integer('Least time between two messages that tell the other replicas of requests and load.', 0, 1000, {
      default: 1,
    }),
    shareTtlMs: integer('A replica that is silent for so long is gone, and what it had in flight.', 1000, hourMs, {
      default: shareTtlMs,
    }),
  },
  { description: 'Redis, through which replicas share one map; omitted: everything stays in this process.' },
)
