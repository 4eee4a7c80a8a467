/**
 * Settings from environment variables.
 *
 * @module
 */

import { storageVariables } from '../storage/factory.ts'
import type { Warning } from '../warnings.ts'
import { checkSetting, type Found, type Layer, pathOf } from './layers.ts'
import { type Environment, nearest, type Problems, quote, textOf } from './problems.ts'
import type { Setting } from './rules.ts'
import { keyedSettings, serviceSettings, settings } from './table.ts'

const prefix = 'CIRCUIT_BREAKER_'

/** All settings. A variable may set those that have `fromText`. */
const all: Readonly<Record<string, Setting>> = { ...settings, ...keyedSettings }

/** `failureThreshold` → `CIRCUIT_BREAKER_FAILURE_THRESHOLD` */
export function variableOf(setting: string): string {
  return prefix + setting.replace(/[A-Z]/g, '_$&').toUpperCase()
}

/** `my-svc` → `__MY_SVC` */
function suffixOf(key: string): string {
  return `__${key.toUpperCase().replace(/[^A-Z0-9]/gu, '_')}`
}

/** `…_TIMEOUT__STRIPE` → `['…_TIMEOUT', '__STRIPE']` */
function splitSuffix(variable: string): [base: string, suffix: string] {
  const at = variable.indexOf('__')
  return at < 0 ? [variable, ''] : [variable.slice(0, at), variable.slice(at)]
}

/** The settings from variables. */
export interface Variables {
  readonly breaker: Layer
  readonly services: ReadonlyMap<string, Layer>
  readonly warnings: readonly Warning[]
}

/** Reads the variables. Adds a warning for a variable that names nothing known, and a problem for a variable that fits two services. */
export function readVariables(env: Environment, keys: readonly string[], problems: Problems): Variables {
  const breaker: Layer = {}
  const services = new Map<string, Layer>(keys.map((key) => [key, {}]))
  const warnings: Warning[] = []
  const names = new Map<string, string>(storageVariables.map((variable) => [variable, 'storage']))
  for (const [name, { fromText }] of Object.entries(all)) if (fromText) names.set(variableOf(name), name)
  const keysBySuffix = Map.groupBy(keys, suffixOf)

  for (const variable of Object.keys(env)) {
    const text = textOf(env, variable)
    if (!variable.startsWith(prefix) || text === undefined) continue
    const [base, suffix] = splitSuffix(variable)
    const name = names.get(base)
    const odd = { prefix, base, suffix, known: [...names.keys()], services: keysBySuffix, nearest }
    if (name === undefined) {
      warnings.push(({ unknownVariable }) => unknownVariable(odd))
    } else if (suffix === '') {
      if (name !== 'storage') breaker[name] = checkText(name, '', variable, text, problems)
    } else if (!Object.hasOwn(serviceSettings, name) && !Object.hasOwn(keyedSettings, name)) {
      problems.add(name, variable, undefined, `${base} cannot be set per service, only for the whole breaker`)
    } else {
      const [key, ...others] = keysBySuffix.get(suffix) ?? []
      if (key === undefined) {
        warnings.push(({ unknownService }) => unknownService(odd))
      } else if (others.length > 0) {
        const fitting = [key, ...others].map(quote).join(' and ')
        problems.add(name, variable, text, `${variable} fits more than one service: ${fitting}; rename all but one`)
      } else {
        ;(services.get(key) as Layer)[name] = checkText(name, pathOf(key), variable, text, problems)
      }
    }
  }
  return { breaker, services, warnings }
}

function checkText(name: string, path: string, variable: string, text: string, problems: Problems): Found {
  return checkSetting(name, path, variable, all[name]?.fromText?.(text), problems)
}
