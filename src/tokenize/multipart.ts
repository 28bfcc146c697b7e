import busboy from '@fastify/busboy'
import { RouterError } from '../errors.ts'

/** Longest model name that is read. */
const modelBytes = 4096

/**
 * The text field `model` of a multipart/form-data body, empty if it has none; nothing else of the body is kept.
 *
 * @throws RouterError BODY_INVALID
 */
export function readMultipartModel(body: Buffer, contentType: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const broken = (cause: unknown): void =>
      reject(new RouterError('BODY_INVALID', 'The body is not valid multipart/form-data.', { cause }))
    let model = ''
    try {
      const form = new busboy.Busboy({ headers: { 'content-type': contentType }, limits: { fieldSize: modelBytes } })
      form.on('file', (_name, file) => file.resume())
      form.on('field', (name, value) => {
        if (name === 'model') model = value
      })
      form.on('finish', () => resolve(model))
      form.on('error', broken)
      form.end(body)
    } catch (cause) {
      broken(cause)
    }
  })
}
