// Draws what the server sends. Every text is set as text, never as markup: names and reasons come from a store.

/**
 * @typedef {{ from: number, to: number, state: 'CLOSED' | 'HALF_OPEN' | 'OPEN', isForced: boolean }} Band
 * @typedef {{ key: string, standing: string, title: string, next: string, facts: [string, string][], advice: string[],
 *   bands: Band[], failures: { at: number, failures: number, successes: number, reporters: number }[], journal: string[] }} Card
 * @typedef {{ title: string, figure: number, unit: string, counts: { at: number, failed: number, refused: number }[],
 *   lanes: { name: string, bands: Band[] }[] }} Fleet
 * @typedef {{ title: string, text: string, from: number, to: number, fleets: Fleet[] }} Comparison
 * @typedef {{ place: string, namespace: string | null, at: number, from: number, span: string, canWrite: boolean,
 *   trouble: string | null, comparison: Comparison | null, circuits: Card[] }} Message
 */

const byId = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id))
const token = new URLSearchParams(location.hash.slice(1)).get('token')
// The token is in the memory of this page only, not in the history of the browser.
if (token !== null) history.replaceState(null, '', '/')

const openStandings = ['forced-open', 'open', 'due', 'probing']
/** The order of cards: what somebody has to look at comes first. */
const order = ['damaged', ...openStandings, 'forced-closed', 'suspected', 'closed', 'not-stored']

/** @type {Message | undefined} */
let latest
/** The last look of each part, as JSON: what has not changed is not drawn again, so that focus and selection stay. */
const drawn = new Map()
let filter = ''

const events = new EventSource('/events')
events.onmessage = ({ data }) => {
  latest = JSON.parse(data)
  draw()
}
events.onerror = () => showTrouble('The connection is lost. The page tries to connect again.')
events.addEventListener('end', () => {
  events.close()
  showTrouble('mcb serve has ended. The page shows the last state.')
})
byId('filter').addEventListener('input', ({ target }) => {
  filter = /** @type {HTMLInputElement} */ (target).value.toLowerCase()
  draw()
})

function showTrouble(/** @type {string | null} */ text) {
  const trouble = byId('trouble')
  trouble.hidden = text === null
  if (trouble.textContent !== (text ?? '')) trouble.textContent = text ?? ''
}

function draw() {
  if (latest === undefined) return
  const { place, namespace, circuits, trouble, comparison, canWrite, span } = latest
  showTrouble(trouble === null ? null : `The store fails: ${trouble}`)
  byId('place').textContent = namespace === null ? `of ${place}` : `of ${place}, namespace ${namespace}`
  const open = circuits.filter(({ standing }) => openStandings.includes(standing)).length
  const summary = `${circuits.length} ${circuits.length === 1 ? 'circuit' : 'circuits'}, ${open} open`
  // A live region is read aloud with each change.
  if (byId('summary').textContent !== summary) byId('summary').textContent = summary
  document.title = open > 0 ? `(${open}) Circuits` : 'Circuits'
  const shown = circuits
    .filter(({ key }) => key.toLowerCase().includes(filter))
    .sort((a, b) => order.indexOf(a.standing) - order.indexOf(b.standing) || a.key.localeCompare(b.key))
  byId('nothing').hidden = circuits.length > 0
  byId('hint').hidden = !canWrite || token !== null
  byId('timeline-section').hidden = circuits.length === 0
  byId('span').textContent = span
  byId('comparison').hidden = comparison === null
  if (comparison !== null) drawComparison(comparison)
  drawTimeline(shown, latest)
  drawCards(shown, canWrite && token !== null)
}

/** @template {HTMLElement} T @param {string} tag @param {string} className @param {string} [text] @returns {T} */
function element(tag, className, text) {
  const made = document.createElement(tag)
  if (className !== '') made.className = className
  if (text !== undefined) made.textContent = text
  return /** @type {T} */ (made)
}

/** @param {string} tag @param {Record<string, string | number>} attributes */
function shape(tag, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value))
  return made
}

/** So many circuits are drawn over time: those that somebody has to look at first. */
const mostTimelines = 60

/** @param {Card[]} cards @param {Message} message */
function drawTimeline(cards, { at, from }) {
  const timeline = byId('timeline')
  const shown = cards.slice(0, mostTimelines)
  // Bands move by a pixel in so long.
  const pixel = (at - from) / 1_000
  const look = JSON.stringify([
    Math.floor(at / pixel),
    shown.map(({ key, bands, failures }) => [key, bands.map(({ state, isForced }) => [state, isForced]), failures]),
    cards.length,
  ])
  if (drawn.get(timeline) === look) return
  drawn.set(timeline, look)
  const x = (/** @type {number} */ time) => (1_000 * (time - from)) / (at - from)
  const highest = Math.max(1, ...shown.flatMap(({ failures }) => failures.map((each) => each.failures)))
  const rows = shown.flatMap(({ key, bands, failures }) => {
    const svg = picture(40, spoken(key, bands, at))
    for (let part = 1; part < 4; part++) svg.append(shape('path', { class: 'grid', d: `M${250 * part} 0v40` }))
    for (const band of bands) {
      svg.append(titled(rectOf(band, x, 1, 18), `${wordOf(band)} ${clock(band.from)} to ${clock(band.to)}`))
      if (band.state !== 'CLOSED')
        svg.append(shape('path', { class: 'refusing', d: `M${x(band.from)} 22H${x(band.to)}` }))
    }
    for (const each of failures.filter(({ at: time }) => time >= from)) {
      const bar = shape('path', {
        class: 'failures',
        d: `M${x(each.at)} 24v${Math.max(3, (15 * each.failures) / highest)}`,
      })
      const text = `${each.failures} failures, ${each.successes} successes, from ${each.reporters} instances`
      svg.append(titled(bar, `${clock(each.at)}: ${text}`))
    }
    return [element('span', 'name', key), svg]
  })
  const axis = element('div', 'axis')
  axis.setAttribute('aria-hidden', 'true')
  for (let part = 0; part < 4; part++) axis.append(element('span', '', clock(from + ((at - from) * part) / 4)))
  axis.append(element('span', '', 'now'))
  const more = cards.length - shown.length
  timeline.replaceChildren(...rows, element('span', 'zone', 'UTC'), axis)
  if (more > 0) timeline.append(element('p', 'more', `${more} more circuits, which are well: use the filter.`))
}

/** @param {Comparison} comparison */
function drawComparison({ title, text, from, to, fleets }) {
  byId('comparison-title').textContent = title
  byId('comparison-text').textContent = text
  const look = JSON.stringify(fleets)
  if (drawn.get(comparisonLook) === look) return
  drawn.set(comparisonLook, look)
  const x = (/** @type {number} */ time) => (1_000 * (time - from)) / (to - from)
  const highest = Math.max(1, ...fleets.flatMap(({ counts }) => counts.map(({ failed, refused }) => failed + refused)))
  const made = fleets.map(({ title: name, figure, unit, counts, lanes }) => {
    const fleet = element('article', 'fleet')
    const sum = element('p', 'figure')
    sum.append(element('strong', '', figure.toLocaleString('en')), ' ', unit)
    const svg = picture(90 + 8 * lanes.length, `${name}: ${figure} ${unit}. ${lanes.length} instances.`)
    for (const [i, { at, failed, refused }] of counts.entries()) {
      const width = Math.max(2, x(counts[i + 1]?.at ?? at) - x(at) - 2)
      const [low, high] = [(76 * failed) / highest, (76 * refused) / highest]
      svg.append(shape('rect', { class: 'failed', x: x(at), y: 80 - low, width, height: low }))
      svg.append(shape('rect', { class: 'refused', x: x(at), y: 80 - low - high, width, height: high }))
    }
    svg.append(shape('path', { class: 'grid', d: 'M0 80H1000' }))
    for (const [i, { bands }] of lanes.entries()) for (const band of bands) svg.append(rectOf(band, x, 88 + 8 * i, 6))
    fleet.append(element('h3', '', name), sum, svg)
    return fleet
  })
  byId('fleets').replaceChildren(...made)
}
const comparisonLook = {}

/** A drawing of 1,000 units in width. @param {number} height @param {string} label */
function picture(height, label) {
  return shape('svg', { viewBox: `0 0 1000 ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label })
}

/** @param {Band} band @param {(time: number) => number} x @param {number} y @param {number} height */
function rectOf({ from, to, state, isForced }, x, y, height) {
  const width = Math.max(1.5, x(to) - x(from))
  return shape('rect', { class: `band ${state}${isForced ? ' is-forced' : ''}`, x: x(from), y, width, height })
}

/** @param {Element} drawing @param {string} text */
function titled(drawing, text) {
  const title = shape('title', {})
  title.textContent = text
  drawing.append(title)
  return drawing
}

/** @param {Band} band */
function wordOf({ state, isForced }) {
  return `${isForced ? 'forced ' : ''}${state.toLowerCase().replace('_', '-')}`
}

/** What a picture says to those who do not see it. @param {string} key @param {Band[]} bands @param {number} now */
function spoken(key, bands, now) {
  const unwell = bands.filter(({ state, isForced }) => state !== 'CLOSED' || isForced)
  if (unwell.length === 0) return `${key}: always closed.`
  const minutes = Math.round(unwell.reduce((sum, { from, to }) => sum + Math.min(to, now) - from, 0) / 60_000)
  const openings = bands.filter((band, i) => band.state === 'OPEN' && bands[i - 1]?.state === 'CLOSED').length
  return `${key}: not closed for ${minutes} minutes, opened ${openings === 1 ? 'once' : `${openings} times`}. Its journal has each change.`
}

/** As all times on the page, in UTC; with seconds where minutes do not tell. */
function clock(/** @type {number} */ at) {
  const isShort = latest !== undefined && latest.at - latest.from < 3_600_000
  return new Date(at).toISOString().slice(11, isShort ? 19 : 16)
}

/** @type {Map<string, HTMLLIElement>} */
const items = new Map()

/** @param {Card[]} cards @param {boolean} canWrite */
function drawCards(cards, canWrite) {
  const list = byId('circuits')
  const keys = new Set(cards.map(({ key }) => key))
  for (const [key, item] of items) {
    if (keys.has(key)) continue
    item.remove()
    items.delete(key)
  }
  cards.forEach((card, i) => {
    let item = items.get(card.key)
    if (item === undefined) {
      item = makeCard(card.key, canWrite)
      items.set(card.key, item)
    }
    fillCard(item, card)
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null)
  })
}

/** @param {string} key @param {boolean} canWrite @returns {HTMLLIElement} */
function makeCard(key, canWrite) {
  /** @type {HTMLLIElement} */
  const item = element('li', 'card')
  const state = element('p', 'state')
  state.append(element('span', 'title'), ' ', element('span', 'next'))
  const details = element('details', 'journal')
  details.append(element('summary', '', 'Journal'), element('ol', ''))
  item.append(element('h3', '', key), state, element('dl', ''), element('div', 'advice'), details)
  if (canWrite) {
    const deeds = element('div', 'deeds')
    for (const deed of /** @type {const} */ (['open', 'close', 'reset'])) {
      const button = element('button', '', { open: 'Force open', close: 'Force closed', reset: 'Reset' }[deed])
      button.setAttribute('aria-label', `${button.textContent} ${key}`)
      button.addEventListener('click', () => ask(deed, key))
      deeds.append(button)
    }
    item.append(deeds)
  }
  return item
}

/** @param {HTMLLIElement} item @param {Card} card */
function fillCard(item, { standing, title, next, facts, advice, journal, key }) {
  const find = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (item.querySelector(selector))
  const set = (/** @type {HTMLElement} */ target, /** @type {string} */ text) => {
    if (target.textContent !== text) target.textContent = text
  }
  const className = `card ${standing}`
  if (item.className !== className) item.className = className
  set(find('.title'), title)
  // All is well: that, and since when, is all there is to say.
  const isQuiet = standing === 'closed' || standing === 'not-stored'
  set(find('.next'), isQuiet && facts[0]?.[0] === 'Since' ? `since ${facts[0][1]}` : next)
  find('dl').hidden = isQuiet
  const list = find('dl')
  const labels = facts.map(([label]) => label).join()
  if (drawn.get(list) !== labels) {
    drawn.set(list, labels)
    list.replaceChildren(...facts.flatMap(([label]) => [element('dt', '', label), element('dd', '')]))
  }
  const values = list.querySelectorAll('dd')
  for (const [i, [, text]] of facts.entries()) set(/** @type {HTMLElement} */ (values[i]), text)
  set(find('.advice'), advice.join(' ').replaceAll('KEY', key))
  const entries = find('ol')
  const look = JSON.stringify(journal)
  find('details').hidden = journal.length === 0
  if (drawn.get(entries) !== look) {
    drawn.set(entries, look)
    entries.replaceChildren(...journal.map((text) => element('li', '', text)))
  }
}

// ---------------------------------------------------------------------------------------------------------- deeds

const dialog = /** @type {HTMLDialogElement} */ (byId('dialog'))
const why = /** @type {HTMLInputElement} */ (byId('why'))
const duration = /** @type {HTMLInputElement} */ (byId('duration'))
/** @type {{ deed: 'open' | 'close' | 'reset', key: string } | undefined} */
let asked

const words = {
  open: ['Force open', 'Every call is refused, whatever the service does.'],
  close: ['Force closed', 'Every call passes, whatever the service does.'],
  reset: ['Reset', 'The circuit closes and works by itself again.'],
}

/** @param {'open' | 'close' | 'reset'} deed @param {string} key */
function ask(deed, key) {
  asked = { deed, key }
  const [title, text] = words[deed]
  byId('dialog-title').textContent = `${title}: ${key}`
  byId('dialog-text').textContent = /** @type {string} */ (text)
  byId('confirm').textContent = /** @type {string} */ (title)
  byId('duration-label').hidden = deed === 'reset'
  byId('dialog-error').hidden = true
  why.value = ''
  duration.value = ''
  dialog.showModal()
  why.focus()
}

byId('cancel').addEventListener('click', () => dialog.close())
byId('form').addEventListener('submit', async (event) => {
  event.preventDefault()
  if (asked === undefined) return
  const { deed, key } = asked
  const time = deed === 'reset' ? '' : duration.value
  const confirm = /** @type {HTMLButtonElement} */ (byId('confirm'))
  confirm.disabled = true
  try {
    const response = await fetch('/deeds', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Authorization: `Bearer ${token}` },
      body: JSON.stringify({ deed, key, why: why.value, duration: time }),
    })
    const { message } = await response.json()
    if (response.ok) return dialog.close()
    showError(message)
  } catch {
    showError('mcb serve does not answer.')
  } finally {
    confirm.disabled = false
  }
})

/** @param {string} message */
function showError(message) {
  const error = byId('dialog-error')
  error.hidden = false
  error.textContent = message
}
