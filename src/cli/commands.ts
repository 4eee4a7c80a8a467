/**
 * The commands that print once and end.
 *
 * @module
 */

import type { JournalEntry } from '../storage/contract.ts'
import { durationOption, numberOption, type Request, UsageError } from './arguments.ts'
import { type Console, columns, paintFor, safe, safeJson } from './console.ts'
import { readJournal, tryJournal } from './journal.ts'
import { type Deed, deedOptionsOf, operate } from './operate.ts'
import type { Place } from './place.ts'
import {
  findStored,
  isOpen,
  listKeys,
  mostListed,
  readStored,
  type StoredCircuit,
  standingOf,
} from './stored-circuits.ts'
import { instant } from './times.ts'
import { ageText, entryText, explain, failureText, nextOf, ownerText, painted } from './words.ts'

/** Carries out a command. Returns the exit code. */
export type Run = (request: Request, place: Place, console: Console) => Promise<number>

/** The exit code where a circuit that was looked at refuses calls. */
export const openCode = 3

export const ls: Run = async ({ values }, place, { stdout, stderr, env, now }) => {
  const keys = await listKeys(place)
  const at = now()
  const all = await readStored(place.storage, keys)
  const circuits = values['open'] === true ? all.filter((circuit) => isOpen(standingOf(circuit, at))) : all
  if (values['json'] === true) stdout.write(`${safeJson(circuits.map((circuit) => jsonOf(circuit, at)))}\n`)
  else if (circuits.length === 0) stdout.write(`${nothing(place, all.length)}\n`)
  else {
    const paint = paintFor(stdout, env)
    const standings = circuits.map((circuit) => standingOf(circuit, at))
    const rows = circuits.map((circuit, i) => rowOf(circuit, standings[i] as never, at))
    const head = ['CIRCUIT', 'STATE', 'SINCE', 'NEXT', 'LAST FAILURE OR OWNER']
    const lines = columns([head, ...rows], (cell, row, column) => {
      if (row === 0) return paint('bold', cell)
      return column === 1 ? painted(standings[row - 1] as never, paint) : cell
    })
    stdout.write(`${lines.join('\n')}\n`)
  }
  if (keys.length >= mostListed) stderr.write(`Only the first ${mostListed} circuits are listed. Name a namespace.\n`)
  return all.some((circuit) => isOpen(standingOf(circuit, at))) ? openCode : 0
}

function nothing({ name, namespace }: Place, stored: number): string {
  const where = `${name}${namespace === undefined ? '' : `, namespace ${safe(namespace)}`}`
  return stored > 0
    ? `None of the ${stored} circuits in ${where} refuses calls.`
    : `No circuit is stored in ${where}. A fleet that has seen no failure for two days has nothing stored.`
}

function rowOf(circuit: StoredCircuit, standing: ReturnType<typeof standingOf>, now: number): string[] {
  const { record } = circuit
  const override = standing.startsWith('forced') ? record?.override : undefined
  const last = record?.lastFailure === undefined ? '' : failureText(record.lastFailure)
  return [
    safe(circuit.key),
    titleOf(standing),
    ageText(record, now),
    nextOf(circuit, standing, now),
    override === undefined ? last : ownerText(override),
  ]
}

function titleOf(standing: ReturnType<typeof standingOf>): string {
  return painted(standing, (_style, text) => text)
}

/** A circuit for programs. */
export function jsonOf(circuit: StoredCircuit, now: number): Readonly<Record<string, unknown>> {
  const { key, record, damage } = circuit
  const standing = standingOf(circuit, now)
  return {
    key,
    standing,
    refusesCalls: isOpen(standing),
    record: record ?? null,
    ...(damage === undefined ? {} : { damage }),
  }
}

export const show: Run = async ({ keys, values }, place, { stdout, env, now }) => {
  const circuit = await findStored(place, keys[0] as string, true)
  const at = now()
  const standing = standingOf(circuit, at)
  if (values['json'] === true) stdout.write(`${safeJson(jsonOf(circuit, at))}\n`)
  else {
    const paint = paintFor(stdout, env)
    const fields = Object.entries(circuit.record ?? { damage: circuit.damage }).filter(
      ([, value]) => value !== undefined,
    )
    const rows = fields.map(([name, value]) => [name, fieldText(name, value, at)])
    stdout.write(`${paint('bold', safe(circuit.key))}: ${painted(standing, paint)}\n${columns(rows).join('\n')}\n`)
  }
  return isOpen(standing) ? openCode : 0
}

function fieldText(name: string, value: unknown, now: number): string {
  if (typeof value === 'number' && /(^at|At|until)$/.test(name)) return `${value}  ${instant(value, now)}`
  return safe(typeof value === 'object' ? JSON.stringify(value) : value)
}

export const explainCommand: Run = async ({ keys, values }, place, { stdout, env, now }) => {
  const circuit = await findStored(place, keys[0] as string, true)
  const journal = await tryJournal(place.storage, circuit.key, { since: now() - day, limit: 100 })
  const at = now()
  const { headline, facts, advice } = explain(circuit, journal, at)
  if (values['json'] === true) {
    const facing = {
      ...jsonOf(circuit, at),
      headline,
      facts: Object.fromEntries(facts),
      advice,
      journal: journal ?? null,
    }
    stdout.write(`${safeJson(facing)}\n`)
  } else {
    const paint = paintFor(stdout, env)
    const rows = [...facts, ...advice.map((text, i): [string, string] => [i === 0 ? 'What to do' : '', text])]
    const lines = columns(
      rows.map(([label, text]) => [`  ${label}`, text.replaceAll('KEY', safe(circuit.key))]),
      (cell, _row, column) => (column === 0 ? paint('dim', cell) : cell),
    )
    stdout.write(`${paint('bold', headline)}\n${lines.length > 0 ? `\n${lines.join('\n')}\n` : ''}`)
  }
  return isOpen(standingOf(circuit, at)) ? openCode : 0
}

const day = 86_400_000

/** So many journals are read side by side. */
const readAtOnce = 16

export const log: Run = async ({ keys, values }, place, { stdout, now }) => {
  const since = now() - (durationOption(values, 'since') ?? day)
  const limit = numberOption(values, 'limit', 1, 10_000) ?? 100
  const { storage, name } = place
  if (storage.readJournal === undefined) throw new UsageError(`The store, ${name}, keeps no journal.`)
  const meant = keys[0] === undefined ? await listKeys(place) : [(await findStored(place, keys[0], false)).key]
  const entries: { readonly key: string; readonly entry: JournalEntry }[] = []
  for (let i = 0; i < meant.length; i += readAtOnce) {
    const keysNow = meant.slice(i, i + readAtOnce)
    const journals = await Promise.all(keysNow.map((key) => readJournal(storage, key, { since, limit })))
    for (const [j, journal] of journals.entries()) {
      for (const entry of journal) entries.push({ key: keysNow[j] as string, entry })
    }
  }
  entries.sort((a, b) => a.entry.at - b.entry.at)
  if (values['json'] === true)
    stdout.write(`${safeJson(entries.map(({ key, entry: { key: _, ...entry } }) => ({ key, ...entry })))}\n`)
  else if (entries.length === 0) stdout.write(`The journal has no entry since ${instant(since, now())}.\n`)
  else for (const { key, entry } of entries) stdout.write(`${entryText(entry, now(), keys[0] === undefined, key)}\n`)
  return 0
}

/** Forces or resets circuits. */
export const deed =
  (what: Deed): Run =>
  async ({ keys, values }, place, { stdout, now }) => {
    const options = await deedOptionsOf(values, place, now())
    const done: string[] = []
    const found: string[] = []
    // Before anything is changed, so that one misspelt name changes nothing.
    for (const name of keys) found.push((await findStored(place, name, what === 'reset')).key)
    for (const key of new Set(found)) {
      await operate(place, key, what, options)
      done.push(key)
      if (values['json'] !== true) stdout.write(`${doneText(what, key, options.until, now())}\n`)
    }
    if (values['json'] === true) {
      const circuits = await readStored(place.storage, done)
      stdout.write(`${safeJson(circuits.map((circuit) => jsonOf(circuit, now())))}\n`)
    }
    return 0
  }

function doneText(what: Deed, key: string, until: number | undefined, now: number): string {
  const name = safe(key)
  if (what === 'reset') return `${name} is closed, and no override holds. Instances follow within their cacheTtl.`
  const end = until === undefined ? `until: mcb reset ${name} --why TEXT` : `until ${instant(until, now)}`
  const state = what === 'open' ? 'forced open: every call is refused' : 'forced closed: every call passes'
  return `${name} is ${state}, ${end}. Instances follow within their cacheTtl.`
}
