/** A refusal in vLLM's form: `{"error": {message, type, param, code}}` with the HTTP status as an integer code. */
export class ApiError extends Error {
  readonly status: number
  readonly type: string
  readonly param: string | null

  constructor(status: number, message: string, param: string | null = null, type = typeOf(status)) {
    super(message)
    this.name = 'ApiError'
    this.status = status
    this.type = type
    this.param = param
  }

  get body(): object {
    return { error: { message: this.message, type: this.type, param: this.param, code: this.status } }
  }
}

/** A field's fault, as vLLM words what its request models refuse: `type`, `msg` and `input` are pydantic's. */
export interface FieldFault {
  /** Path of the field below the body; empty for the body itself. */
  readonly field: string
  readonly kind: string
  readonly message: string
  readonly value: unknown
}

/** The 400 for bodies that do not fit the endpoint's model, in the words of vLLM's validation handler. */
export function invalid(...faults: readonly FieldFault[]): ApiError {
  const path = ({ field }: FieldFault): string => (field === '' ? 'body' : `body.${field}`)
  const lines = faults.map(
    (fault) =>
      `  {'type': '${fault.kind}', 'loc': '${path(fault)}', 'msg': '${fault.message}', 'input': ${shown(fault.value)}}`,
  )
  return unfit(lines, faults[0] === undefined ? null : path(faults[0]))
}

export function missing(body: object, ...fields: readonly string[]): ApiError {
  return invalid(...fields.map((field) => ({ field, kind: 'missing', message: 'Field required', value: body })))
}

/** vLLM takes JSON bodies only where they are declared as such. */
export function unsupportedMediaType(): ApiError {
  return unfit(["  Unsupported Media Type: Only 'application/json' is allowed"], null)
}

function unfit(lines: readonly string[], param: string | null): ApiError {
  const count = `${lines.length} validation ${lines.length === 1 ? 'error' : 'errors'}:`
  return new ApiError(400, [count, ...lines].join('\n'), param, 'Bad Request')
}

/** Containers are named, not shown, as vLLM does to bound its answers. */
function shown(value: unknown): string {
  if (value === null || value === undefined) return "'None'"
  if (Array.isArray(value)) return `'<list of ${value.length} items>'`
  if (typeof value === 'object') return `'<dict of ${Object.keys(value).length} items>'`
  return `'${(typeof value === 'string' ? value : JSON.stringify(value)).slice(0, 200)}'`
}

function typeOf(status: number): string {
  switch (status) {
    case 403:
      return 'PermissionDeniedError'
    case 404:
      return 'NotFoundError'
    case 422:
      return 'UnprocessableEntityError'
    case 503:
      return 'ServiceUnavailableError'
    default:
      return status >= 500 ? 'InternalServerError' : 'BadRequestError'
  }
}
