import busboy from '@fastify/busboy'
import { RouterError } from '../errors.ts'

/** Longest model name that is read. */
const modelBytes = 4096

/**
 * The text field `model` of a multipart/form-data body, empty if it has none; nothing else of the body is kept. Two such
 * fields are refused: parsers differ in which of them they keep.
 *
 * @throws RouterError BODY_INVALID, BODY_DUPLICATE_KEY
 */
export function readMultipartModel(body: Buffer, contentType: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const broken = (cause: unknown): void => {
      if (cause instanceof RouterError) reject(cause)
      else reject(new RouterError('BODY_INVALID', 'The body is not valid multipart/form-data.', { cause }))
    }
    if (!/^multipart\/form-data\s*;/i.test(contentType)) {
      broken(new Error('another content type'))
      return
    }
    const models: string[] = []
    try {
      const form = new busboy.Busboy({ headers: { 'content-type': contentType }, limits: { fieldSize: modelBytes } })
      form.on('file', (name, file) => {
        if (name === 'model') broken(invalidModel('must be a text, not a file'))
        file.resume()
      })
      form.on('field', (name, value, _nameTruncated, valueTruncated) => {
        if (name !== 'model') return
        if (valueTruncated) broken(invalidModel(`is longer than ${modelBytes} bytes`))
        models.push(value)
      })
      form.on('finish', () => {
        if (models.length > 1) broken(duplicateModel())
        resolve(models[0] ?? '')
      })
      form.on('error', broken)
      form.end(body)
    } catch (cause) {
      broken(cause)
    }
  })
}

function invalidModel(what: string): RouterError {
  return new RouterError('BODY_INVALID', `"model" ${what}.`, { param: 'model' })
}

function duplicateModel(): RouterError {
  return new RouterError('BODY_DUPLICATE_KEY', 'The form has the field "model" twice.', { param: 'model' })
}
