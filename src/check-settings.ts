/**
 * The part of a check that sends no request: whether the settings fit each other and the function.
 *
 * @module
 */

import { named } from './check-words.ts'
import type { Runtime } from './runtime.ts'
import type { ServiceSettings } from './settings/table.ts'
import type { Finding } from './storage/contract.ts'
import type { Synchronizer } from './sync/synchronizer.ts'

/** The settings that are checked. */
export interface CheckedSettings {
  /** The circuits whose `mode` is not `off`. */
  readonly circuits: readonly Synchronizer[]
  readonly runtime: Runtime
  /** Milliseconds. */
  readonly storageTimeout: number
  /** The remaining time of the invocation, in milliseconds; `Infinity`: there is no deadline. */
  readonly timeLeft: number
}

/** Without a timeout, a call that the deadline ends counts as a failure after this time, in milliseconds. */
const fairTime = 1_000
/** The share of the time for calls that the store may take. Another file repeats this number: a shared file would cost every handler. */
const storeShare = 0.25
/** The time that `flush` leaves before the end of an invocation, in milliseconds. */
export const keptBack = 100

type Rule = (settings: ServiceSettings, breaker: CheckedSettings) => Omit<Finding, 'service'> | undefined

/** Makes one finding for each rule and wording. A finding names all the services that it concerns. */
export function settingsFindings(breaker: CheckedSettings): Finding[] {
  const { circuits, runtime, timeLeft } = breaker
  if (circuits.length === 0) return [switchedOff]
  const found = new Map<string, { readonly text: Omit<Finding, 'service'>; readonly services: string[] }>()
  for (const { circuit } of circuits) {
    for (const rule of rules) {
      const text = rule(circuit.settings, breaker)
      if (text === undefined) continue
      const entry = found.get(text.code + text.message) ?? { text, services: [] }
      found.set(text.code + text.message, entry)
      entry.services.push(circuit.service)
    }
  }
  const findings = Array.from(found.values(), ({ text, services }): Finding => {
    const message = services.length === circuits.length ? text.message : `${named(services)}: ${text.message}`
    return { ...text, message, service: services.length === 1 ? services[0] : undefined }
  })
  const inLambda = runtime.env['AWS_LAMBDA_FUNCTION_NAME'] !== undefined
  return inLambda && timeLeft === Number.POSITIVE_INFINITY ? [...findings, noContext] : findings
}

/** Each service gets only the first of these findings that fits: it makes the later ones pointless. */
const deadlineRule: Rule = ({ deadlineReserve, timeout }, { timeLeft, storageTimeout }) => {
  const room = Math.round(timeLeft - deadlineReserve)
  const fair = timeout === false ? fairTime : timeout / 2
  const have = `This invocation has ${room} ms for calls: ${Math.round(timeLeft)} ms less deadlineReserve, ${deadlineReserve} ms`
  if (room <= 0) {
    return {
      code: 'no-time-for-calls',
      severity: 'error',
      setting: 'deadlineReserve',
      message: `This invocation has ${Math.round(timeLeft)} ms, and deadlineReserve reserves ${deadlineReserve} ms: its calls are refused.`,
      remedy: 'Give the function a longer timeout, or set CIRCUIT_BREAKER_DEADLINE_RESERVE lower.',
    }
  }
  if (room < fair) {
    return {
      code: 'no-fair-time',
      severity: 'error',
      setting: 'timeout',
      message: `${have}. A call that the deadline ends counts as a failure only after ${fair} ms: a service that hangs cannot open its circuit.`,
      remedy: 'Give the function a longer timeout, or set a shorter CIRCUIT_BREAKER_TIMEOUT.',
    }
  }
  if (timeout !== false && room < timeout) {
    return {
      code: 'timeout-beyond-deadline',
      severity: 'warning',
      setting: 'timeout',
      message: `${have}. The timeout of a call is ${timeout} ms: the deadline ends calls first.`,
      remedy: 'Give the function a longer timeout, or set a shorter CIRCUIT_BREAKER_TIMEOUT.',
    }
  }
  const share = Math.round(Math.min(storageTimeout, room * storeShare))
  if (room - share < fair) {
    return {
      code: 'no-time-beside-store',
      severity: 'warning',
      setting: 'storageTimeout',
      message: `${have}. A store that does not answer takes up to ${share} ms of it (storageTimeout, ${storageTimeout} ms, but at most a quarter). That leaves a call less than the ${fair} ms it needs before it counts as a failure.`,
      remedy: 'Give the function a longer timeout, or set CIRCUIT_BREAKER_STORAGE_TIMEOUT lower.',
    }
  }
  return undefined
}

const reserveRule: Rule = ({ deadlineReserve }) =>
  deadlineReserve > keptBack
    ? undefined
    : {
        code: 'reserve-too-short',
        severity: 'warning',
        setting: 'deadlineReserve',
        message: `deadlineReserve, ${deadlineReserve} ms, leaves no time to store the failure of a call that the deadline ends: the breaker leaves the last ${keptBack} ms unused.`,
        remedy: 'Set CIRCUIT_BREAKER_DEADLINE_RESERVE to several hundred milliseconds.',
      }

const cacheRule: Rule = ({ cacheTtl, resetTimeout }) =>
  cacheTtl < resetTimeout
    ? undefined
    : {
        code: 'cache-outlives-reset',
        severity: 'warning',
        setting: 'cacheTtl',
        message: `cacheTtl, ${cacheTtl} ms, is not shorter than resetTimeout, ${resetTimeout} ms: an instance may learn of an open circuit only when its probe is due.`,
        remedy: 'Set CIRCUIT_BREAKER_CACHE_TTL to half of CIRCUIT_BREAKER_RESET_TIMEOUT or less.',
      }

const rules: readonly Rule[] = [deadlineRule, reserveRule, cacheRule]

const switchedOff: Finding = {
  code: 'switched-off',
  severity: 'info',
  setting: 'mode',
  message: 'mode is off for every service: calls pass straight through, and nothing was checked.',
  remedy: 'Check again with CIRCUIT_BREAKER_MODE=observe or enforce.',
}

const noContext: Finding = {
  code: 'not-checked',
  severity: 'info',
  setting: 'deadlineReserve',
  message: "The check got no context, so it did not compare the function's timeout with the settings.",
  remedy: "Call check({ context }) with the handler's context at the beginning of an invocation.",
}
