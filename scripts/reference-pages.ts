/**
 * The pages of `docs/reference`: what `reference-model.ts` has read, as Markdown.
 *
 * @module
 */

import { type Declaration, type Doc, type Entry, type Member, readReference, type Value } from './reference-model.ts'

/** The folder of the pages. */
export const folder = 'docs/reference'

interface Page {
  readonly file: string
  readonly title: string
  /** What is on it, for the index. */
  readonly about: string
  /** The entry that it belongs to, by the name after the package's. */
  readonly entry: string
}

const pages: readonly Page[] = [
  {
    file: 'breaker.md',
    entry: '',
    title: 'The breaker',
    about: 'the class `CircuitBreaker`: calls, snapshots, `check`, operators',
  },
  {
    file: 'middleware.md',
    entry: '',
    title: 'The middleware',
    about: '`circuitBreaker` for Middy, and the context that it extends',
  },
  { file: 'settings.md', entry: '', title: 'Settings', about: 'the options of the breaker and of its services' },
  {
    file: 'failures.md',
    entry: '',
    title: 'What counts as a failure',
    about: 'the default classifiers, and the parts of your own',
  },
  {
    file: 'errors.md',
    entry: '',
    title: 'Errors and warnings',
    about: 'every error with its `code` and `reason`, and the codes of warnings',
  },
  {
    file: 'events.md',
    entry: '',
    title: 'Events',
    about: 'listeners, the reasons of state changes, diagnostics channels',
  },
  {
    file: 'storage.md',
    entry: '',
    title: 'Storage',
    about: 'the contract of a store, the record, the memory store, the factory',
  },
  { file: 'dynamodb.md', entry: 'dynamodb', title: 'DynamoDB', about: 'the store in a DynamoDB table' },
  {
    file: 'redis.md',
    entry: 'redis',
    title: 'Redis',
    about: 'the store in Redis or Valkey, and the clients that it takes',
  },
  { file: 'durable.md', entry: 'durable', title: 'Durable functions', about: '`untilRecovered` and `retryAfterFrom`' },
  { file: 'powertools.md', entry: 'powertools', title: 'Powertools', about: 'metrics and log lines' },
  { file: 'otel.md', entry: 'otel', title: 'OpenTelemetry', about: 'metrics, and events on spans' },
  {
    file: 'testing.md',
    entry: 'testing',
    title: 'Testing',
    about: 'a Lambda context for tests, and the suite for stores',
  },
]

/** The page of an export of the main entry: by its name, or by its file. */
const placesByName: Readonly<Record<string, string>> = {
  Evidence: 'events.md',
  StateChangeReason: 'events.md',
  Finding: 'breaker.md',
  FindingCode: 'breaker.md',
}
const placesByFile: readonly (readonly [pattern: RegExp, page: string])[] = [
  [
    /^src\/(call|circuit)\/|^src\/(circuit-breaker|operators|named-circuits|read-journal|check|runtime)\.ts$/,
    'breaker.md',
  ],
  [/^src\/middleware\.ts$/, 'middleware.md'],
  [/^src\/settings\//, 'settings.md'],
  [/^src\/failures\//, 'failures.md'],
  [/^src\/(errors|warnings)\.ts$/, 'errors.md'],
  [/^src\/(events|telemetry\/channels)\.ts$/, 'events.md'],
  [/^src\/storage\//, 'storage.md'],
]

/** The unions that people look up, and what they are of. */
const lists: readonly (readonly [name: string, of: string])[] = [
  ['CircuitBreakerErrorCode', 'the `code` of an error'],
  ['RefusalReason', 'the `reason` of a refusal'],
  ['TimeoutReason', 'the `reason` of a timeout'],
  ['StateChangeReason', 'the `reason` of a change of state'],
  ['StorageErrorKind', 'the `kind` of a trouble with the store'],
  ['FindingCode', 'the `code` of a finding of `check()`'],
  ['CircuitBreakerWarningCode', 'the `code` of a warning'],
]

/** A declaration on its page. */
interface Placed {
  readonly declaration: Declaration
  readonly names: readonly string[]
  readonly page: string
  readonly isExported: boolean
}

/** The pages by their paths, as the code says now. */
export function referencePages(entries: readonly Entry[] = readReference()): Map<string, string> {
  const placed = place(entries)
  const files = pages.map(({ file, title, entry }): [string, string] => {
    const own = placed.filter(({ page }) => page === file)
    const module = entry === '' ? 'middy-circuit-breaker' : `middy-circuit-breaker/${entry}`
    const doc = entry === '' ? undefined : entries.find(({ name }) => name === module)?.doc
    return [file, new PageWriter(file, placed).page(title, module, doc, own)]
  })
  return new Map(
    [['README.md', index(placed)] as [string, string], ...files].map(([file, text]) => [`${folder}/${file}`, text]),
  )
}

function place(entries: readonly Entry[]): Placed[] {
  const placed = entries.flatMap(({ name, exports }) =>
    exports.map(({ names, declaration }): Placed => {
      const [, entry = ''] = name.split('/')
      const page = entry === '' ? placeOf(declaration) : pages.find((each) => each.entry === entry)?.file
      if (page === undefined) throw new Error(`The entry ${name} has no page in scripts/reference-pages.ts.`)
      return { declaration, names, page, isExported: true }
    }),
  )
  // What they use comes behind them, on the page of the first that does.
  const seen = new Set(placed.map(({ declaration }) => declaration))
  for (const { declaration, page } of placed) {
    for (const used of declaration.uses) {
      if (seen.has(used)) continue
      seen.add(used)
      placed.push({ declaration: used, names: [used.name], page, isExported: false })
    }
  }
  return placed
}

function placeOf({ name, file }: Declaration): string {
  const page = placesByName[name] ?? placesByFile.find(([pattern]) => pattern.test(file))?.[1]
  if (page === undefined) throw new Error(`${name} of ${file} has no page in scripts/reference-pages.ts.`)
  return page
}

function index(placed: readonly Placed[]): string {
  const writer = new PageWriter('README.md', placed)
  const exported = placed.filter(({ isExported }) => isExported)
  const rows = pages.map(({ file, title, entry, about }) => {
    const module = entry === '' ? 'middy-circuit-breaker' : `middy-circuit-breaker/${entry}`
    return `| [${title}](${file}) | \`${module}\` | ${about} |`
  })
  const found = lists.map(([name, of]) => `| ${of} | ${writer.link(name)} |`)
  const all = exported
    .toSorted((a, b) => a.declaration.name.localeCompare(b.declaration.name, 'en'))
    .map(
      ({ declaration: { name, doc }, page }) =>
        `| [\`${name}\`](${page}#${anchor(name)}) | ${writer.cell(firstSentence(doc))} |`,
    )
  return [
    made,
    '# API reference',
    'Everything that can be imported, from the comments in the code. For how to use it, see the [documentation](../README.md).',
    ['| page | import from | about |', '| --- | --- | --- |', ...rows].join('\n'),
    '## Codes and reasons',
    ['| list of | type |', '| --- | --- |', ...found].join('\n'),
    '## All exports',
    ['| export | |', '| --- | --- |', ...all].join('\n'),
    '',
  ]
    .join('\n\n')
    .trimEnd()
    .concat('\n')
}

const made =
  '<!-- Made by `npm run page -- reference` from the comments in `src`; what is written here by hand is lost. -->'

class PageWriter {
  readonly #file: string
  readonly #placed: readonly Placed[]

  constructor(file: string, placed: readonly Placed[]) {
    this.#file = file
    this.#placed = placed
  }

  page(title: string, module: string, doc: Doc | undefined, own: readonly Placed[]): string {
    const anchors = own.map(({ declaration: { name } }) => anchor(name))
    const twice = anchors.find((each, position) => anchors.indexOf(each) !== position)
    if (twice !== undefined) throw new Error(`Two headings of ${this.#file} have the anchor ${twice}.`)
    const exported = own.filter(({ isExported }) => isExported)
    const used = own.filter(({ isExported }) => !isExported)
    const values = exported.filter(({ declaration: { kind } }) => kind === 'class' || kind === 'function')
    const types = exported.filter((each) => !values.includes(each))
    return [
      made,
      `# ${title}`,
      `\`import … from '${module}'\`. All pages: [API reference](README.md).`,
      ...(doc === undefined ? [] : [this.#inline(doc.text)]),
      exported.map(({ declaration: { name } }) => `[\`${name}\`](#${anchor(name)})`).join(' · '),
      ...[...values, ...types].flatMap((each) => this.#declaration(each)),
      ...(used.length === 0
        ? []
        : [
            'The types below are used above. They cannot be imported.',
            ...used.flatMap((each) => this.#declaration(each)),
          ]),
    ]
      .join('\n\n')
      .concat('\n')
  }

  #declaration({ declaration, names }: Placed): string[] {
    const { name, kind, code, doc, members, values, bases } = declaration
    const fields = members.filter((member) => member.kind === 'field')
    const methods = members.filter((member) => member.kind !== 'field')
    // A class that carries out a contract says so once.
    const carriedOut =
      kind === 'class' ? methods.filter(({ docOf, kind: of }) => docOf !== undefined && of === 'method') : []
    const contract = carriedOut[0]?.docOf
    const asTable = kind === 'class' ? fields : members
    return [
      `## ${name}`,
      ...(code === `interface ${name}` ? [] : [block(code)]),
      ...(names.includes('default') ? ['Also the default export.'] : []),
      ...(doc === undefined ? [] : this.#doc(doc, name)),
      ...(bases.length === 0 ? [] : [`Has the members of ${bases.map((base) => this.link(base)).join(' and ')} too.`]),
      ...this.#values(values, kind === 'type'),
      ...(asTable.length === 0 ? [] : [this.#table(asTable, name)]),
      ...(kind === 'class' ? methods.filter((each) => !carriedOut.includes(each)) : []).flatMap((each) =>
        this.#method(each, name),
      ),
      ...(contract === undefined
        ? []
        : [`As ${this.link(contract)} says: ${carriedOut.map((each) => `\`${each.name}\``).join(', ')}.`]),
    ]
  }

  #method({ name, kind, code, doc, docOf }: Member, owner: string): string[] {
    const heading = kind === 'constructor' ? `new ${owner}` : `${owner}.${name}`
    const text = code.map((each) => (kind === 'constructor' ? each.replace(/^constructor/, `new ${owner}`) : each))
    const said = docOf === undefined || doc === undefined ? doc : { ...doc, text: `As in ${docOf}: ${doc.text}` }
    return [`### ${heading}`, block(text.join('\n')), ...(said === undefined ? [] : this.#doc(said, owner))]
  }

  #doc({ text, params, returns, throws, examples }: Doc, owner: string): string[] {
    const items = [
      ...params.map(([name, text]) => `- \`${name}\`: ${this.#inline(text, owner)}`),
      ...(returns === undefined ? [] : [`- Returns ${this.#inline(returns, owner)}`]),
      ...throws.map(([errors, when]) => `- Throws ${this.#errors(errors)}: ${this.#inline(when, owner)}`),
    ].map((item) => item.replaceAll(/\n(?=\S)/g, '\n  '))
    return [
      ...(text === '' ? [] : [this.#inline(text, owner)]),
      ...(items.length === 0 ? [] : [items.join('\n')]),
      ...examples.flatMap((example) => ['Example:', block(example.replaceAll(/^```(ts)?$/gm, '').trim())]),
    ]
  }

  #errors(names: string): string {
    return names
      .split('|')
      .map((name) => this.link(name.trim()))
      .join(' or ')
  }

  #values(values: readonly Value[], isAlias: boolean): string[] {
    if (!values.some(({ doc }) => doc !== undefined)) return []
    const rows = values.map(({ code, doc }) => `| ${this.type(code)} | ${this.cell(doc?.text ?? '')} |`)
    return [[`| ${isAlias ? 'value' : 'type'} | meaning |`, '| --- | --- |', ...rows].join('\n')]
  }

  #table(members: readonly Member[], owner: string): string {
    const rows = members.map((member) => {
      const { name, kind, code, isOptional } = member
      const parameters = code.map((each) => each.slice(each.indexOf('(', each.indexOf(name))))
      const type = kind === 'field' ? code : parameters.map((each) => each.replaceAll(/\s+/g, ' '))
      const shown = type.map((each) => this.type(each)).join('<br>')
      return `| \`${unquoted(name)}${isOptional ? '?' : ''}\` | ${shown} | ${this.#meaning(member, owner)} |`
    })
    return ['| name | type | meaning |', '| --- | --- | --- |', ...rows].join('\n')
  }

  /** All that is said of a member, in one cell. */
  #meaning({ doc, values }: Member, owner: string): string {
    if (doc === undefined) return ''
    const { text, params, returns, throws } = doc
    const more = [
      ...params.map(([name, said]) => `\`${name}\`: ${said}.`),
      ...(returns === undefined ? [] : [`Returns ${returns}.`]),
      ...throws.map(([errors, when]) => `Throws {@link ${errors}} ${when}.`),
      ...values.filter((value) => value.doc !== undefined).map((value) => `\`${value.code}\`: ${value.doc?.text}`),
    ]
    return this.cell([text, ...more].join('\n\n'), owner)
  }

  /** A type, in which the names of this reference are links. */
  type(code: string): string {
    const line = code.replaceAll(/\s+/g, ' ')
    const text = line.split(/('[^']*')|\b([A-Z]\w*)\b/).map((part, position) => {
      if (part === undefined) return ''
      const target = position % 3 === 2 ? this.#target(part) : undefined
      return target === undefined ? escaped(part) : `[${part}](${target})`
    })
    const hasLinks = text.some((part) => part.startsWith('['))
    return hasLinks ? `<code>${text.join('')}</code>` : `\`${line.replaceAll('|', '\\|')}\``
  }

  /** A link to a name of this reference, if it is one. */
  link(name: string, owner?: string): string {
    const target = this.#target(name, owner)
    return target === undefined ? `\`${name}\`` : `[\`${name}\`](${target})`
  }

  #target(name: string, owner?: string): string | undefined {
    const [type = '', member] = name.split('.')
    const found = this.#placed.filter(({ declaration }) => declaration.name === type)
    const { page, declaration } = found.find((each) => each.page === this.#file) ?? found[0] ?? {}
    if (page === undefined || declaration === undefined)
      return owner === undefined ? undefined : this.#target(`${owner}.${name}`)
    const isMethod = declaration.members.some((each) => each.name === member && each.kind === 'method')
    if (
      member !== undefined &&
      !(isMethod && declaration.kind === 'class') &&
      !declaration.members.some((each) => each.name === member)
    )
      return undefined
    const heading = isMethod && declaration.kind === 'class' ? name : type
    return `${page === this.#file ? '' : page}#${anchor(heading)}`
  }

  #inline(text: string, owner?: string): string {
    return text.replaceAll(/\{@link ([\w.]+)\s*\}/g, (_, name: string) => {
      if (this.#target(name, owner) === undefined)
        throw new Error(`A doc comment links ${name}, which no page has (${this.#file}).`)
      return this.link(name, owner)
    })
  }

  /** Text for a cell of a table. */
  cell(text: string, owner?: string): string {
    return this.#inline(text, owner)
      .replaceAll(/\n+- /g, '<br>• ')
      .replaceAll(/\n{2,}/g, '<br>')
      .replaceAll(/\s*\n\s*/g, ' ')
      .replaceAll('|', '\\|')
  }
}

function block(code: string): string {
  return `\`\`\`ts\n${code}\n\`\`\``
}

/** What Markdown would read as its own. */
function escaped(code: string): string {
  return code
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll(/[[\]|*`\\]/g, (character) => `&#${character.charCodeAt(0)};`)
}

function unquoted(name: string): string {
  return name.replace(/^'(.*)'$/, '$1')
}

function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replaceAll(/[^\w -]/g, '')
    .replaceAll(' ', '-')
}

function firstSentence(doc: Doc | undefined): string {
  const [paragraph = ''] = (doc?.text ?? '').split('\n\n')
  return /^[\s\S]*?[.:](?=\s|$)/.exec(paragraph)?.[0].replace(/(;[^;:]*)?:$/, '.') ?? paragraph
}
