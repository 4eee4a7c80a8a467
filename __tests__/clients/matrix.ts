/** Observes every client with every fault that it can meet. */

import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { authority, makeCertificates } from './certificates.ts'
import { clientNames } from './clients.ts'
import type { Matrix } from './observe.ts'

const observer = fileURLToPath(new URL('observe.ts', import.meta.url))

export async function observeMatrix(): Promise<Matrix> {
  const folder = await mkdtemp(join(tmpdir(), 'circuit-faults-'))
  try {
    await makeCertificates(folder)
    const { stdout } = await promisify(execFile)(process.execPath, [observer, folder, ...clientNames], {
      // Nothing else of the environment: clients heed the settings of proxies and of AWS.
      env: {
        PATH: process.env['PATH'],
        NODE_EXTRA_CA_CERTS: join(folder, authority),
        AWS_EC2_METADATA_DISABLED: 'true',
      },
      maxBuffer: 64 * 1024 * 1024,
    })
    return JSON.parse(stdout)
  } finally {
    await rm(folder, { recursive: true })
  }
}
