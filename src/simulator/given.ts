import { parseArgs } from 'node:util'
import { RouterError } from '../errors.ts'

/** One option of a command line. */
export interface Option {
  readonly value: string
  readonly help: string
  readonly default?: string | number
  /** Least allowed value of a number; `fraction` where it need not be whole. */
  readonly least?: number
  readonly fraction?: boolean
  readonly multiple?: boolean
  /** Given without a value. */
  readonly flag?: boolean
}

/** The values of a command line, defaults filled in. Faults are RouterError CONFIG_INVALID and name the option. */
export class Given<Name extends string = string> {
  readonly #options: Readonly<Record<Name, Option>>
  readonly #values: Readonly<Record<string, string | boolean | (string | boolean)[] | undefined>>

  constructor(argv: readonly string[], options: Readonly<Record<Name, Option>>) {
    this.#options = options
    const forms = Object.fromEntries(
      Object.entries<Option>(options).map(([name, { flag = false, multiple = false }]) => [
        name,
        { type: flag ? ('boolean' as const) : ('string' as const), multiple },
      ]),
    )
    try {
      this.#values = parseArgs({ args: [...argv], options: forms, strict: true, allowPositionals: false }).values
    } catch (cause) {
      const [reason = ''] = (cause as Error).message.split('. ')
      throw new RouterError('CONFIG_INVALID', `${reason}. "warmroute simulate --help" lists the options.`, { cause })
    }
  }

  /** Whether the option was on the command line. */
  has(name: Name): boolean {
    return this.#values[name] !== undefined
  }

  text(name: Name): string {
    const { default: standard = '' } = this.#options[name]
    const value = this.#values[name]
    return typeof value === 'string' ? value : String(standard)
  }

  list(name: Name): readonly string[] {
    const value = this.#values[name]
    return Array.isArray(value) ? value.map(String) : []
  }

  flag(name: Name): boolean {
    return this.#values[name] === true
  }

  number(name: Name): number {
    const { least = 0, fraction = false } = this.#options[name]
    const text = this.text(name)
    const value = Number(text)
    if (text.trim() === '' || !Number.isFinite(value) || value < least || (!fraction && !Number.isInteger(value))) {
      throw new RouterError(
        'CONFIG_INVALID',
        `--${name} must be a ${fraction ? '' : 'whole '}number of at least ${least}, not "${text}".`,
      )
    }
    return value
  }

  oneOf<Choice extends string>(name: Name, choices: readonly Choice[]): Choice {
    const text = this.text(name)
    const choice = choices.find((other) => other === text)
    if (choice === undefined) {
      throw new RouterError('CONFIG_INVALID', `--${name} must be ${choices.join(' or ')}, not "${text}".`)
    }
    return choice
  }
}
