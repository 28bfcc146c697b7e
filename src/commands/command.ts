/** What a command sees of the world: handed in, so that commands can be run by tests. */
export interface CommandIo {
  readonly out: (text: string) => void
  readonly error: (text: string) => void
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Fulfilled with the signal's name when the process is asked to end. */
  readonly ended: Promise<string>
  /** Calls back at each SIGHUP, which ends the process as long as nobody does. */
  readonly onHangup: (listener: () => void) => void
  /** Writes as it is to standard error; absent where that is no terminal. */
  readonly progress?: (text: string) => void
}

export interface Command {
  readonly name: string
  readonly summary: string
  readonly usage: string
  /** The exit code. Throws RouterError for faults that the user can mend. */
  readonly run: (argv: readonly string[], io: CommandIo) => Promise<number>
}
