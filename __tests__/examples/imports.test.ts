import { execFile } from 'node:child_process'
import { cp, mkdtemp, readdir, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals'
import { bundlePackage } from '../../scripts/build.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..', '..')
const examples = join(root, 'examples')

/** The modules that somebody deploys, or imports in a clone. */
const modules = (await readdir(examples, { recursive: true }))
  .filter((file) => /^[\w-]+\/(handler|minimal|worker)\.ts$/.test(file))
  .sort()

const url = 'http://127.0.0.1:9'

/** The variables without which an example does not start. Nothing is sent to these addresses. */
const variables: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  billing: { STRIPE_SECRET_KEY: 'sk_test_example' },
  'content-moderation': { OPENAI_API_KEY: 'sk-example' },
  demo: {},
  email: {
    EMAIL_FROM: 'shop@example.com',
    EMAIL_QUEUE_URL: url,
    RESEND_API_KEY: 're_example',
    SENDGRID_API_KEY: 'SG.a',
  },
  'environment-tuning': { STRIPE_URL: url, STRIPE_API_KEY: 'sk_test_example', RATES_URL: url },
  geolocation: { IPINFO_TOKEN: 'token' },
  observability: { PAYMENTS_URL: url, PAYMENTS_API_KEY: 'key' },
  'sqs-consumer': { WAREHOUSE_URL: url, SHIPMENTS_QUEUE_URL: url, SHIPMENTS_DEAD_LETTER_QUEUE_URL: url },
  translation: { OPENAI_API_KEY: 'sk-example' },
  webhooks: { WAITING_QUEUE_URL: url },
}

/**
 * A clone after `npm install && npm run build`: the manifest, the built files and the examples. It is a copy, because `dist`
 * of this repository may be missing, or may be older than the sources.
 */
let clone: string

beforeAll(async () => {
  clone = await mkdtemp(join(tmpdir(), 'clone-'))
  await bundlePackage(join(clone, 'dist'))
  await cp(join(root, 'package.json'), join(clone, 'package.json'))
  await cp(examples, join(clone, 'examples'), { recursive: true })
  // By links these are found where they are.
  for (const name of ['node_modules', 'src']) await symlink(join(root, name), join(clone, name))
})
afterAll(() => rm(clone, { recursive: true }))

describe('An example in a clone', () => {
  it.each(modules)('can be imported by Node, and finds the package by its name: %s', async (file) => {
    const [example = ''] = file.split('/')
    const program = `const { handler } = await import(${JSON.stringify(join(clone, 'examples', file))})
      console.log(typeof handler)`
    const env = {
      PATH: process.env['PATH'],
      AWS_REGION: 'eu-west-1',
      CIRCUIT_BREAKER_STORAGE: 'memory',
      ...variables[example],
    }

    const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', program], { cwd: clone, env })

    expect(stdout).toBe('function\n')
  })

  it('is one of these', () => {
    expect(modules).toEqual(
      expect.arrayContaining(['billing/handler.ts', 'environment-tuning/handler.ts', 'geolocation/minimal.ts']),
    )
  })
})
