// Draws what the server sends. Every text is set as text, never as markup: names and reasons come from a store.

/**
 * @typedef {{ from: number, to: number, state: 'CLOSED' | 'HALF_OPEN' | 'OPEN', isForced: boolean }} Band
 * @typedef {{ key: string, standing: string, title: string, next: string, facts: [string, string][], advice: string[],
 *   bands: Band[], openings: { at: number, failures: number, successes: number, reporters: number }[], journal: string[] }} Card
 * @typedef {{ place: string, namespace: string | null, at: number, from: number, canWrite: boolean, trouble: string | null,
 *   circuits: Card[] }} Message
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
events.onerror = () => showTrouble('The connection to mcb serve is lost. It is tried again.')
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
  const { place, namespace, circuits, trouble } = latest
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
  byId('timeline-section').hidden = circuits.length === 0
  drawTimeline(shown, latest)
  drawCards(shown, latest.canWrite && token !== null)
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
  // Bands move by a pixel in a minute or so.
  const look = JSON.stringify([
    Math.floor(at / 60_000),
    shown.map(({ key, bands, openings }) => [key, bands.map(({ state, isForced }) => [state, isForced]), openings]),
  ])
  if (drawn.get(timeline) === look) return
  drawn.set(timeline, look)
  const x = (/** @type {number} */ time) => (1_000 * (time - from)) / (at - from)
  const highest = Math.max(1, ...shown.flatMap(({ openings }) => openings.map(({ failures }) => failures)))
  const rows = shown.flatMap(({ key, bands, openings }) => {
    const svg = shape('svg', {
      viewBox: '0 0 1000 40',
      preserveAspectRatio: 'none',
      role: 'img',
      'aria-label': spoken(key, bands, at),
    })
    for (const band of bands) {
      const rect = shape('rect', {
        class: `band ${band.state}${band.isForced ? ' is-forced' : ''}`,
        x: x(band.from),
        y: 1,
        width: Math.max(1.5, x(band.to) - x(band.from)),
        height: 20,
      })
      const title = shape('title', {})
      title.textContent = `${wordOf(band)} ${clock(band.from)} to ${clock(band.to)}`
      rect.append(title)
      svg.append(rect)
    }
    for (const { at: time, failures, successes, reporters } of openings) {
      const height = Math.max(2, (16 * failures) / highest)
      const bar = shape('rect', { class: 'bar', x: x(time) - 1.5, y: 23, width: 3, height })
      const title = shape('title', {})
      title.textContent = `${clock(time)}: ${failures} failures, ${successes} successes, ${reporters} reporters`
      bar.append(title)
      svg.append(bar)
    }
    return [element('span', 'name', key), svg]
  })
  const axis = shape('svg', { class: 'axis', 'aria-hidden': 'true' })
  for (let hours = 24; hours >= 0; hours -= 6) {
    const text = shape('text', {
      x: `${((24 - hours) / 24) * 100}%`,
      y: '1em',
      'text-anchor': hours === 24 ? 'start' : hours === 0 ? 'end' : 'middle',
    })
    text.textContent = hours === 0 ? 'now' : clock(at - hours * 3_600_000)
    axis.append(text)
  }
  const more =
    cards.length > shown.length
      ? [element('span', '', ''), element('span', 'legend', `${cards.length - shown.length} more: use the filter.`)]
      : []
  timeline.replaceChildren(...rows, element('span', '', ''), axis, ...more)
}

/** @param {Band} band */
function wordOf({ state, isForced }) {
  return `${isForced ? 'forced ' : ''}${state.toLowerCase().replace('_', '-')}`
}

/** What a picture says to those who do not see it. @param {string} key @param {Band[]} bands @param {number} now */
function spoken(key, bands, now) {
  const unwell = bands.filter(({ state, isForced }) => state !== 'CLOSED' || isForced)
  if (unwell.length === 0) return `${key}: closed for the last 24 hours.`
  const minutes = Math.round(unwell.reduce((sum, { from, to }) => sum + Math.min(to, now) - from, 0) / 60_000)
  const openings = bands.filter((band, i) => band.state === 'OPEN' && bands[i - 1]?.state === 'CLOSED').length
  return `${key}: not closed for ${minutes} minutes of the last 24 hours, opened ${openings} times. The journal below has each change.`
}

function clock(/** @type {number} */ at) {
  return new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
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
  const details = element('details', '')
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
  set(find('.next'), next)
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
