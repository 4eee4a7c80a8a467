/** Certificates for servers that a client must not trust although it trusts who signed them. */

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const openssl = (...args: string[]) => promisify(execFile)('openssl', args)
const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

/** `expired`: for this host, until yesterday. `wrong-host`: valid, but for another host. */
export type Certificate = 'expired' | 'wrong-host'

const certificates: Readonly<Record<Certificate, { readonly days: number; readonly names: string }>> = {
  expired: { days: -1, names: 'DNS:localhost,IP:127.0.0.1' },
  'wrong-host': { days: 2, names: 'DNS:other.invalid' },
}

/** The authority that signs them: clients are to trust it. */
export const authority = 'authority.pem'

/** Writes an authority, and a certificate of each kind that it signed, with their keys. */
export async function makeCertificates(folder: string): Promise<void> {
  const file = (name: string): string => join(folder, name)
  const signer = ['-CA', file(authority), '-CAkey', file('authority.key')]
  await openssl(
    'req',
    '-x509',
    '-days',
    '2',
    ...key,
    '-subj',
    '/CN=authority',
    '-keyout',
    file('authority.key'),
    '-out',
    file(authority),
  )
  await Promise.all(
    Object.entries(certificates).map(async ([name, { days, names }]) => {
      await writeFile(file(`${name}.names`), `subjectAltName=${names}`)
      await openssl(
        'req',
        ...key,
        '-subj',
        '/CN=localhost',
        '-keyout',
        file(`${name}.key`),
        '-out',
        file(`${name}.request`),
      )
      const request = ['-req', '-in', file(`${name}.request`), '-out', file(`${name}.pem`)]
      const validity = ['-days', String(days), '-extfile', file(`${name}.names`), '-set_serial', String(2 + days)]
      await openssl('x509', ...request, ...signer, ...validity)
    }),
  )
}

/** What a server shows. */
export function readCertificate(folder: string, name: Certificate): { readonly key: Buffer; readonly cert: Buffer } {
  return { key: readFileSync(join(folder, `${name}.key`)), cert: readFileSync(join(folder, `${name}.pem`)) }
}
