import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RouterError } from '../../src/errors.ts'
import { readMultipartModel } from '../../src/tokenize/multipart.ts'

const contentType = 'multipart/form-data; boundary=XX'

function part(header: string, value: string): string {
  return `--XX\r\nContent-Disposition: form-data; ${header}\r\n\r\n${value}\r\n`
}

const sound = part('name="file"; filename="a.wav"\r\nContent-Type: audio/wav', '\x00\xff\r\n--X')
const end = '--XX--\r\n'

function modelOf(body: string, type = contentType): Promise<string> {
  return readMultipartModel(Buffer.from(body, 'latin1'), type)
}

async function refused(body: string, type = contentType): Promise<RouterError> {
  try {
    await modelOf(body, type)
  } catch (error) {
    assert.ok(error instanceof RouterError)
    assert.equal(error.status, 400)
    return error
  }
  return assert.fail('the form was accepted')
}

test('the model of a form is found wherever it stands, and is empty if the form has none', async () => {
  assert.equal(await modelOf(part('name="model"', 'whisper') + sound + end), 'whisper')
  assert.equal(await modelOf(sound + part('name="model"', 'whisper') + end), 'whisper')
  assert.equal(await modelOf(sound + end), '')
  assert.equal(await modelOf(end), '')
})

test('a form that its client made with the platform’s own classes is read', async () => {
  const form = new FormData()
  form.append('model', 'größer')
  form.append('file', new Blob([new Uint8Array(1000)]), 'a.wav')
  const request = new Response(form)
  const type = request.headers.get('content-type') ?? ''
  assert.equal(await readMultipartModel(Buffer.from(await request.arrayBuffer()), type), 'größer')
})

test('a malformed form, a second model, a model that is a file and another type of body are refused', async () => {
  const model = part('name="model"', 'whisper')
  for (const body of ['', 'junk', model, model.slice(0, -9), model.replaceAll('\r\n', '\n') + end]) {
    assert.equal((await refused(body)).code, 'BODY_INVALID')
  }
  assert.equal((await refused(model + end, 'multipart/form-data')).code, 'BODY_INVALID')
  assert.equal((await refused(model + end, 'multipart/form-data; boundary=YY')).code, 'BODY_INVALID')
  assert.equal((await refused('model=whisper', 'application/x-www-form-urlencoded')).code, 'BODY_INVALID')
  assert.equal((await refused(part('name="model"', 'm'.repeat(5000)) + end)).param, 'model')
  assert.equal((await refused(part('name="model"; filename="m"', 'whisper') + end)).param, 'model')
  const twice = await refused(model + sound + part('name="model"', 'other') + end)
  assert.equal(twice.code, 'BODY_DUPLICATE_KEY')
  assert.equal(twice.param, 'model')
})

test('an error says nothing of what the form holds', async () => {
  const error = await refused(part('name="secret"', 'my prompt'))
  assert.doesNotMatch(error.message, /secret|prompt/)
})
