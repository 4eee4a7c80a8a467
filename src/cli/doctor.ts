/**
 * Checks a store, its permissions and clock, and the settings of the functions that use it.
 *
 * @module
 */

import { CircuitBreaker } from '../circuit-breaker.ts'
import { isConfigurationError } from '../errors.ts'
import type { Finding } from '../storage/contract.ts'
import type { Run } from './commands.ts'
import { paintFor, safe, safeJson } from './console.ts'
import type { DeployedFunction } from './deployed-function.ts'
import { partsOf } from './operate.ts'
import type { Place } from './place.ts'
import { listKeys } from './stored-circuits.ts'

const marks = { error: ['red', '✗'], warning: ['yellow', '!'], info: ['cyan', 'i'] } as const

export const doctor: Run = async ({ values }, place, { stdout, env }) => {
  const findings = await findingsOf(place)
  if (values['json'] === true) stdout.write(`${safeJson(findings)}\n`)
  else {
    const paint = paintFor(stdout, env)
    for (const { severity, message, remedy } of findings) {
      const [colour, mark] = marks[severity]
      stdout.write(`${paint(colour, `${mark} ${severity}`)}  ${safe(message)}\n    ${safe(remedy)}\n`)
    }
    const errors = findings.filter(({ severity }) => severity === 'error').length
    const verdict =
      errors === 0
        ? paint('green', 'The breaker can do its work.')
        : paint('red', `${errors} error${errors === 1 ? '' : 's'}: in an outage the breaker would not do its work.`)
    stdout.write(
      `${verdict} Checked: ${place.name}${place.functions.map(({ name }) => `, function ${safe(name)}`).join('')}.\n`,
    )
  }
  return findings.some(({ severity }) => severity === 'error') ? 1 : 0
}

async function findingsOf(place: Place): Promise<Finding[]> {
  const found: Finding[] = []
  const services = await servicesOf(place)
  for (const one of place.functions) {
    try {
      found.push(...(await checkAs(place, services, one.env, one)))
    } catch (error) {
      if (!isConfigurationError(error)) throw error
      const message = `The settings of the function ${one.name} are refused: ${error.message}`
      found.push({ code: 'settings-refused', severity: 'error', message, remedy: 'Correct its environment variables.' })
    }
  }
  if (place.functions.length === 0) found.push(...(await checkAs(place, services, {}, undefined)))
  found.push(...contradictions(place.functions))
  const order = ['error', 'warning', 'info']
  const unique = new Map(found.map((finding) => [`${finding.code} ${finding.message}`, finding]))
  return [...unique.values()].sort((a, b) => order.indexOf(a.severity) - order.indexOf(b.severity))
}

/** The circuits to check: those that are stored, or one that is not. */
async function servicesOf(place: Place): Promise<string[]> {
  try {
    const keys = await listKeys(place)
    const services = keys.flatMap((key) => {
      try {
        const { namespace, service, key: ofService } = partsOf(key)
        return namespace === place.namespace && ofService === undefined ? [service] : []
      } catch {
        return []
      }
    })
    if (services.length > 0) return services.slice(0, 100)
  } catch {
    // The check tells why.
  }
  return ['doctor']
}

function checkAs(
  place: Place,
  services: string[],
  env: Place['env'],
  one: DeployedFunction | undefined,
): Promise<Finding[]> {
  // Inside Lambda the client library would be loaded at once, and in init.
  const { AWS_LAMBDA_FUNCTION_NAME: _, ...tuning } = env
  const options = { services, namespace: place.namespace, storage: place.storage, preload: false }
  const breaker = new CircuitBreaker(options, { env: tuning })
  const context = one === undefined ? undefined : { getRemainingTimeInMillis: () => one.timeout }
  return breaker.check({ context })
}

/** Functions that tune the same circuit differently: whichever opens it decides how long it stays open. */
function contradictions(functions: readonly DeployedFunction[]): Finding[] {
  const names = new Set(
    functions.flatMap(({ env }) => Object.keys(env).filter((name) => /^CIRCUIT_BREAKER_/.test(name))),
  )
  return [...names].flatMap((name): Finding[] => {
    if (name === 'CIRCUIT_BREAKER_REDIS_URL' || name === 'CIRCUIT_BREAKER_TABLE_NAME')
      return storeContradiction(functions, name)
    const values = functions.map((one) => `${one.name}: ${one.env[name] ?? 'unset'}`)
    if (new Set(functions.map(({ env }) => env[name])).size < 2) return []
    return [
      {
        code: 'settings-differ',
        severity: 'warning',
        setting: name,
        message: `The functions differ in ${name} (${values.join(', ')}).`,
        remedy:
          'Set the same value in all of them, or give each function its own services or namespace. The function that opens a shared circuit decides how long it stays open.',
      },
    ]
  })
}

/** The message leaves the URL out: it may hold a password. */
function storeContradiction(functions: readonly DeployedFunction[], name: string): Finding[] {
  if (new Set(functions.map(({ env }) => env[name])).size < 2) return []
  const message = `The functions ${functions.map((one) => one.name).join(' and ')} differ in ${name}: they do not share their circuits.`
  return [
    {
      code: 'stores-differ',
      severity: 'error',
      setting: name,
      message,
      remedy: `Set the same ${name} in all of them.`,
    },
  ]
}
