/**
 * The tables of settings in the documentation, from the table that the code itself checks settings with.
 *
 * @module
 */

import { keyedTable, type SettingDescription, settingsTable } from './setting-descriptions.ts'

/** A stretch of a page that is written from `settingsTable`, between two comments. */
interface Table {
  readonly page: string
  readonly name: string
  readonly header: readonly string[]
  readonly includes: (setting: SettingDescription) => boolean
  readonly row: (setting: SettingDescription) => readonly string[]
}

const full = {
  page: 'docs/use/settings.md',
  header: ['setting', 'default', 'allowed', 'variable', 'meaning'],
  row: (setting: SettingDescription) => [
    `\`${setting.name}\``,
    textOfDefault(setting),
    setting.allowed,
    setting.variable === undefined ? '–' : `\`${setting.variable}\``,
    setting.meaning,
  ],
}

/** The settings that people change, for the README. */
const changed = new Set(['failureThreshold', 'resetTimeout', 'timeout', 'cacheTtl', 'maxConcurrent', 'mode'])

const tables: readonly Table[] = [
  { ...full, name: 'settings of a service', includes: ({ perService }) => perService },
  { ...full, name: 'settings of the whole breaker', includes: ({ perService }) => !perService },
  {
    page: 'README.md',
    name: 'settings',
    header: ['setting', 'default', 'unit', 'meaning'],
    includes: ({ name }) => changed.has(name),
    row: (setting) => [`\`${setting.name}\``, textOfDefault(setting), setting.unit, setting.meaning],
  },
]

/** The pages that have such tables. */
export const pagesWithSettings: readonly string[] = [...new Set(tables.map(({ page }) => page))]

/**
 * A page with its tables replaced.
 *
 * @param page its path from the root of the repository
 * @throws {Error} naming the table that the page has no place for
 */
export function withSettings(page: string, text: string): string {
  return tables
    .filter((table) => table.page === page)
    .reduce((current, table) => {
      const begin = `<!-- ${table.name}: \`npm run page -- settings\` writes what is between these lines. -->`
      const end = `<!-- the end of the ${table.name}. -->`
      const [before, rest] = current.split(begin)
      const after = rest?.split(end)[1]
      if (before === undefined || after === undefined) throw new Error(`${page} has no place for the ${table.name}.`)
      return `${before}${begin}\n\n${markdown(table)}\n\n${end}${after}`
    }, text)
}

function markdown({ header, includes, row }: Table): string {
  const lines = [header, header.map(() => '---'), ...[...settingsTable, ...keyedTable].filter(includes).map(row)]
  return lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')
}

function textOfDefault({ default: value, name, perService }: SettingDescription): string {
  if (typeof value === 'function') return `the exported \`${name}\``
  if (value === undefined) return perService ? '–' : 'none'
  if (typeof value === 'number') return String(value).replace(/\B(?=(\d{3})+$)/g, ' ')
  return `\`${value}\``
}
