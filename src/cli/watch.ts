/**
 * The live view: redrawn in place on a terminal, otherwise a line for each change.
 *
 * @module
 */

import { createInterface, emitKeypressEvents } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Board, BoardReader, interval } from './board.ts'
import { jsonOf, type Run } from './commands.ts'
import { type Console, type Paint, paintFor, safe, safeJson } from './console.ts'
import { bandsOf, sparkline } from './history.ts'
import { type Deed, identity, operate } from './operate.ts'
import type { Place } from './place.ts'
import { isOpen, type Standing, type StoredCircuit, standingOf } from './stored-circuits.ts'
import { ageText, failureText, nextOf, ownerText, painted, titles } from './words.ts'

const hour = 3_600_000

export const watch: Run = async ({ values }, place, console) => {
  const reader = new BoardReader(place, console.now, hour)
  const isTerminal = console.stdout.isTTY === true && console.env['TERM'] !== 'dumb' && values['json'] !== true
  const board = isTerminal
    ? await watchOnTerminal(reader, place, console)
    : await watchByLine(reader, console, values['json'] === true)
  return board.circuits.some((circuit) => isOpen(standingOf(circuit, board.at))) ? 3 : 0
}

async function watchByLine(
  reader: BoardReader,
  { stdout, stderr, now, signal }: Console,
  isJson: boolean,
): Promise<Board> {
  const known = new Map<string, string>()
  let trouble: string | undefined
  for (;;) {
    const board = await reader.refresh()
    for (const circuit of board.circuits) {
      const standing = standingOf(circuit, now())
      if (known.get(circuit.key) === standing) continue
      known.set(circuit.key, standing)
      stdout.write(
        isJson
          ? `${safeJson({ at: board.at, ...jsonOf(circuit, now()) }, 0)}\n`
          : `${lineOf(circuit, standing, now())}\n`,
      )
    }
    if (board.trouble !== undefined && board.trouble !== trouble) stderr.write(`${safe(board.trouble)}\n`)
    trouble = board.trouble
    if (await ended(signal)) return board
  }
}

function lineOf(circuit: StoredCircuit, standing: Standing, now: number): string {
  const { key, record } = circuit
  const parts = [nextOf(circuit, standing, now), detailOf(circuit, standing)].filter((part) => part !== '')
  const rest = parts.length === 0 || record === undefined ? '' : `; ${parts.join('; ')}`
  return `${new Date(now).toISOString()} ${safe(key)}: ${titles[standing]}${rest}`
}

/** Waits for the next refresh. Returns whether the user has ended the command. */
async function ended(signal: AbortSignal): Promise<boolean> {
  await sleep(interval, undefined, { signal }).catch(() => undefined)
  return signal.aborted
}

function detailOf({ record }: StoredCircuit, standing: Standing): string {
  if (record === undefined) return ''
  if (standing.startsWith('forced') && record.override !== undefined) return ownerText(record.override)
  return isOpen(standing) && record.lastFailure !== undefined ? failureText(record.lastFailure) : ''
}

// -------------------------------------------------------------------------------------------------------- terminal

/** What the user has chosen, and the question that is asked. */
export interface Choice {
  readonly selected: number
  /** A question with the answer so far. */
  readonly question: { readonly deed: Deed; readonly key: string; readonly answer: string } | undefined
  /** What the last deed came to. */
  readonly note: string
}

async function watchOnTerminal(reader: BoardReader, place: Place, console: Console): Promise<Board> {
  const { stdout, stdin, env, now, signal } = console
  const paint = paintFor(stdout, env)
  const done = new AbortController()
  signal.addEventListener('abort', () => done.abort(), { once: true })
  let board = await reader.refresh()
  let choice: Choice = { selected: 0, question: undefined, note: '' }
  let scroll = 0
  const draw = (): void => {
    const { columns: width = 80, rows = 24 } = stdout
    const room = Math.max(1, rows - 5)
    scroll = Math.max(Math.min(scroll, choice.selected), choice.selected - room + 1)
    const lines = frameOf(board, choice, { from: scroll, count: room }, now(), width - 1, paint, place.name)
    stdout.write(`\x1b[H${lines.map((line) => `${line}\x1b[K`).join('\r\n')}\x1b[J`)
  }
  const act = async (deed: Deed, key: string, why: string): Promise<void> => {
    choice = { ...choice, note: `${deed} ${safe(key)} …` }
    draw()
    try {
      await operate(place, key, deed, { by: await identity(place), why, until: undefined })
      choice = { ...choice, note: `${deed} ${safe(key)}: done. Instances follow within their cacheTtl.` }
    } catch (error) {
      choice = { ...choice, note: safe((error as Error).message) }
    }
    draw()
  }
  const typed = (text: string | undefined, key: { name?: string; ctrl?: boolean }): void => {
    if (key.ctrl === true && key.name === 'c') {
      done.abort()
      return
    }
    const result = afterKey(choice, text, key.name ?? '', board.circuits)
    if (result === 'end') {
      done.abort()
      return
    }
    choice = result.choice
    draw()
    if (result.deed !== undefined) void act(result.deed.deed, result.deed.key, result.deed.why)
  }
  // An alternate screen without a cursor, so that the terminal is afterwards what it was before.
  stdout.write('\x1b[?1049h\x1b[?25l')
  const input = createInterface({ input: stdin, escapeCodeTimeout: 50 })
  emitKeypressEvents(stdin, input)
  if (stdin.isTTY) stdin.setRawMode(true)
  stdin.on('keypress', typed)
  try {
    while (!done.signal.aborted) {
      draw()
      if (await ended(done.signal)) break
      board = await reader.refresh()
    }
  } finally {
    stdin.off('keypress', typed)
    if (stdin.isTTY) stdin.setRawMode(false)
    input.close()
    stdin.unref?.()
    stdout.write('\x1b[?25h\x1b[?1049l')
  }
  return board
}

const deeds: Readonly<Record<string, Deed>> = { o: 'open', c: 'close', r: 'reset' }

/** What a key does. */
export function afterKey(
  choice: Choice,
  text: string | undefined,
  name: string,
  circuits: readonly StoredCircuit[],
):
  | 'end'
  | { readonly choice: Choice; readonly deed?: { readonly deed: Deed; readonly key: string; readonly why: string } } {
  const { question, selected } = choice
  if (question !== undefined) {
    const { deed, key, answer } = question
    if (name === 'escape') return { choice: { ...choice, question: undefined, note: 'Nothing was changed.' } }
    if (name === 'backspace') return { choice: { ...choice, question: { deed, key, answer: answer.slice(0, -1) } } }
    if (name === 'return' || name === 'enter') {
      const why = answer.trim()
      if (why === '') return { choice: { ...choice, note: 'A reason is needed. Escape changes nothing.' } }
      return { choice: { ...choice, question: undefined }, deed: { deed, key, why } }
    }
    const more = text !== undefined && !/\p{Cc}/u.test(text) ? text : ''
    return { choice: { ...choice, question: { deed, key, answer: answer + more } } }
  }
  if (name === 'q') return 'end'
  const last = Math.max(0, circuits.length - 1)
  if (name === 'up' || name === 'k') return { choice: { ...choice, selected: Math.max(0, selected - 1) } }
  if (name === 'down' || name === 'j') return { choice: { ...choice, selected: Math.min(last, selected + 1) } }
  const [deed, circuit] = [deeds[name], circuits[selected]]
  if (deed === undefined || circuit === undefined) return { choice }
  return { choice: { ...choice, note: '', question: { deed, key: circuit.key, answer: '' } } }
}

/** The whole picture, as lines that fit. */
export function frameOf(
  board: Board,
  choice: Choice,
  { from, count }: { readonly from: number; readonly count: number },
  now: number,
  width: number,
  paint: Paint,
  place: string,
): string[] {
  const { circuits, journals, trouble } = board
  const open = circuits.filter((circuit) => isOpen(standingOf(circuit, now))).length
  const clock = new Date(now).toISOString().slice(11, 19)
  const head = `${safe(place)}  ${circuits.length} circuit${circuits.length === 1 ? '' : 's'}, ${open} open  ${clock} UTC`
  const shown = circuits.slice(from, from + count)
  const keyWidth = Math.min(40, Math.max(7, ...shown.map(({ key }) => Array.from(safe(key)).length)))
  const rows = shown.map((circuit, i) => {
    const standing = standingOf(circuit, now)
    const { key, record } = circuit
    const isSelected = from + i === choice.selected
    const mark = isSelected ? '›' : ' '
    const bands = bandsOf(journals.get(key) ?? [], record?.state ?? 'CLOSED', now - hour, now)
    const state = titles[standing].padEnd(22)
    const parts = [
      sparkline(bands, now - hour, now, 20),
      evidenceBar(circuit, standing).padEnd(11),
      ageText(record, now).padEnd(12),
      nextOf(circuit, standing, now).padEnd(18),
      detailOf(circuit, standing),
    ]
    const plain = `${mark} ${fitted(safe(key), keyWidth)} `
    const rest = cut(` ${parts.join(' ')}`, Math.max(0, width - keyWidth - 3 - state.length))
    const line = `${plain}${painted(standing, paint)}${' '.repeat(state.length - titles[standing].length)}${rest.trimEnd()}`
    return isSelected ? paint('bold', line) : line
  })
  const below = circuits.length - from - shown.length
  const foot =
    choice.question === undefined
      ? choice.note
      : `Why ${choice.question.deed} ${safe(choice.question.key)}? ${choice.question.answer}█`
  return [
    paint('bold', cut(head, width)),
    paint(
      'dim',
      cut(
        `  ${'circuit'.padEnd(keyWidth)} ${'state'.padEnd(22)} ${'last hour'.padEnd(20)} ${'evidence'.padEnd(11)} ${'since'.padEnd(12)} next`,
        width,
      ),
    ),
    ...(rows.length === 0
      ? ['  No circuit is stored. A fleet that has seen no failure for two days has nothing stored.']
      : rows),
    paint('dim', cut(below > 0 ? `  … ${below} more` : '', width)),
    cut(trouble === undefined ? foot : `The store fails: ${safe(trouble)}`, width),
    paint(
      'dim',
      cut(
        choice.question === undefined
          ? '↑↓ choose   o open   c close   r reset   q end'
          : 'Enter does it, Escape does not.',
        width,
      ),
    ),
  ]
}

/** Failures against successes, under a suspicion: `███░░ 3:2`. */
function evidenceBar({ record }: StoredCircuit, standing: Standing): string {
  if (record === undefined || standing === 'closed' || standing.startsWith('forced')) return ''
  const { failureCount: failures, successCount: successes } = record
  const all = failures + successes
  if (all <= 0 || !Number.isFinite(all)) return ''
  const filled = Math.round((5 * failures) / all)
  return `${'█'.repeat(filled)}${'░'.repeat(5 - filled)} ${short(failures)}:${short(successes)}`
}

function short(count: number): string {
  return count > 999 ? '999+' : String(count)
}

function fitted(text: string, width: number): string {
  const letters = Array.from(text)
  return letters.length > width ? `${letters.slice(0, width - 1).join('')}…` : text + ' '.repeat(width - letters.length)
}

function cut(text: string, width: number): string {
  return Array.from(text).slice(0, width).join('')
}
