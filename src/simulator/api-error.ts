/** A refusal in vLLM's form: `{"error": {message, type, param, code}}` with the HTTP status as an integer code. */
export class ApiError extends Error {
  readonly status: number
  readonly type: string
  readonly param: string | null

  constructor(status: number, message: string, param: string | null = null) {
    super(message)
    this.name = 'ApiError'
    this.status = status
    this.type = typeOf(status)
    this.param = param
  }

  get body(): object {
    return { error: { message: this.message, type: this.type, param: this.param, code: this.status } }
  }
}

function typeOf(status: number): string {
  switch (status) {
    case 403:
      return 'PermissionDeniedError'
    case 404:
      return 'NotFoundError'
    case 422:
      return 'UnprocessableEntityError'
    default:
      return status >= 500 ? 'InternalServerError' : 'BadRequestError'
  }
}
