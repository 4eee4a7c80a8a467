/** A line chart with logarithmic or linear axes, as an SVG that reads in light and in dark. */
export interface Chart {
  readonly title: string
  readonly x: Axis
  readonly y: Axis
  readonly lines: readonly Line[]
}

export interface Axis {
  readonly label: string
  /** Where the axis is marked, from its beginning to its end, with what is written there. */
  readonly ticks: readonly (readonly [value: number, label: string])[]
  readonly isLogarithmic: boolean
}

export interface Line {
  readonly name: string
  /** Which of the colours; lines that belong together share one and differ in `isDashed`. */
  readonly colour: number
  readonly isDashed?: boolean
  /** A limit has no measured points: no markers. */
  readonly isLimit?: boolean
  /** What a logarithmic axis cannot show, a zero, is left out, and the line is broken there. */
  readonly points: readonly (readonly [x: number, y: number | undefined])[]
}

const width = 720
const left = 76
const right = 24
const rowHeight = 20
const plotHeight = 300
/** Light and dark, told apart also without seeing colour, by their lightness and by the markers. */
const colours = [
  ['#1f5fbf', '#7fb0ff'],
  ['#c2410c', '#ff9a5c'],
  ['#0f766e', '#4fd1c5'],
  ['#7e22ce', '#d0a2ff'],
  ['#4b5563', '#a8b0bd'],
] as const

export function drawChart({ title, x, y, lines }: Chart): string {
  const columns = 2
  const legendHeight = Math.ceil(lines.length / columns) * rowHeight
  const top = 44 + legendHeight
  const height = top + plotHeight + 56
  const bottom = top + plotHeight
  const toX = scale(x, left, width - right)
  const toY = scale(y, bottom, top)
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeMarkup(title)}">`,
    `<style>${style()}</style>`,
    `<rect class="page" width="${width}" height="${height}"/>`,
    `<text class="title" x="${left}" y="24">${escapeMarkup(title)}</text>`,
  ]
  lines.forEach((line, index) => {
    const at = left + (index % columns) * ((width - left - right) / columns)
    const row = 44 + Math.floor(index / columns) * rowHeight
    parts.push(
      `<path class="${classOf(line)}" d="M${at} ${row}h28"/>`,
      line.isLimit ? '' : marker(line.colour, at + 14, row),
      `<text x="${at + 36}" y="${row + 4}">${escapeMarkup(line.name)}</text>`,
    )
  })
  for (const [value, label] of x.ticks) {
    parts.push(
      `<path class="grid" d="M${toX(value)} ${top}V${bottom}"/>`,
      `<text text-anchor="middle" x="${toX(value)}" y="${bottom + 18}">${escapeMarkup(label)}</text>`,
    )
  }
  for (const [value, label] of y.ticks) {
    parts.push(
      `<path class="grid" d="M${left} ${toY(value)}H${width - right}"/>`,
      `<text text-anchor="end" x="${left - 8}" y="${toY(value) + 4}">${escapeMarkup(label)}</text>`,
    )
  }
  parts.push(
    `<text text-anchor="middle" x="${(left + width - right) / 2}" y="${height - 12}">${escapeMarkup(x.label)}</text>`,
    `<text text-anchor="middle" transform="translate(16 ${(top + bottom) / 2}) rotate(-90)">${escapeMarkup(y.label)}</text>`,
  )
  for (const line of lines) {
    const shown = line.points.map(([at, value]) =>
      value === undefined || (y.isLogarithmic && value <= 0) ? undefined : ([toX(at), toY(value)] as const),
    )
    let path = ''
    shown.forEach((point, index) => {
      if (point !== undefined) path += `${shown[index - 1] === undefined ? 'M' : 'L'}${point[0]} ${point[1]}`
    })
    if (path !== '') parts.push(`<path class="${classOf(line)}" d="${path}"/>`)
    if (line.isLimit) continue
    for (const point of shown) if (point !== undefined) parts.push(marker(line.colour, ...point))
  }
  parts.push('</svg>')
  return `${parts.filter((part) => part !== '').join('\n')}\n`
}

/** The marks of a logarithmic axis: the powers of ten from one to another. */
export function powersOfTen(from: number, to: number, label: (value: number) => string): Axis['ticks'] {
  const ticks: [number, string][] = []
  for (let power = from; power <= to; power++) {
    const value = power < 0 ? 1 / 10 ** -power : 10 ** power
    ticks.push([value, label(value)])
  }
  return ticks
}

function scale({ ticks, isLogarithmic }: Axis, from: number, to: number): (value: number) => number {
  const of = isLogarithmic ? Math.log10 : (value: number) => value
  const first = of(ticks[0]?.[0] ?? 1)
  const last = of(ticks.at(-1)?.[0] ?? 10)
  return (value) => Math.round((from + ((of(value) - first) / (last - first)) * (to - from)) * 10) / 10
}

function classOf({ colour, isDashed = false, isLimit = false }: Line): string {
  return `line c${colour}${isDashed || isLimit ? ' dashed' : ''}`
}

function marker(colour: number, x: number, y: number): string {
  const shapes = [
    `<circle class="f${colour}" cx="${x}" cy="${y}" r="4"/>`,
    `<path class="f${colour}" d="M${x - 4} ${y - 4}h8v8h-8z"/>`,
    `<path class="f${colour}" d="M${x} ${y - 5}l5 9h-10z"/>`,
    `<path class="f${colour}" d="M${x} ${y - 5}l5 5l-5 5l-5-5z"/>`,
  ] as const
  return shapes[colour % shapes.length] as string
}

function style(): string {
  const rules = (index: 0 | 1, page: string, text: string, grid: string) => [
    `.page{fill:${page}}text{fill:${text}}.grid{stroke:${grid}}`,
    ...colours.map((pair, colour) => `.c${colour}{stroke:${pair[index]}}.f${colour}{fill:${pair[index]}}`),
  ]
  return [
    'text{font:13px system-ui,sans-serif}.title{font-size:16px;font-weight:600}',
    '.line{fill:none;stroke-width:2}.dashed{stroke-dasharray:6 4}.grid{stroke-width:1}',
    ...rules(0, '#ffffff', '#1f2328', '#d8dee4'),
    `@media(prefers-color-scheme:dark){${rules(1, '#0d1117', '#e6edf3', '#30363d').join('')}}`,
  ].join('')
}

function escapeMarkup(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}
