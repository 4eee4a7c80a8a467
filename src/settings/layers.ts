import { type Problems, quote } from './problems.ts'
import type { Setting } from './rules.ts'
import { keyedSettings, settings } from './table.ts'

/** A value and its source: `option`, `default` or a variable's name. A refused value is `undefined`. */
export interface Found {
  readonly value: unknown
  readonly source: string
}

/** The settings from one source, by name. */
export type Layer = Record<string, Found>

/** `services.stripe.`, or `services["my svc"].` */
export function pathOf(key: string): string {
  return /^[\w$-]{1,64}$/.test(key) ? `services.${key}.` : `services[${quote(key)}].`
}

/** Returns the value if the setting accepts it. Otherwise adds a problem. */
export function checkSetting(name: string, path: string, source: string, value: unknown, problems: Problems): Found {
  const setting = (settings[name] ?? keyedSettings[name as keyof typeof keyedSettings]) as Setting
  if (setting.accepts(value)) return { value, source }
  problems.mustBe(setting.allowed, path + name, source, value)
  return { value: undefined, source }
}
