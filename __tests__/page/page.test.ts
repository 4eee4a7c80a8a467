import { createRequire } from 'node:module'
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { startBrowser } from '../../scripts/browser.ts'
import { badDay, note, placeIn, put } from '../../scripts/scripted-circuits.ts'
import { type ServedPage, type ServeOptions, servePage } from '../../src/cli/serve.ts'
import { CircuitBreaker } from '../../src/index.ts'
import { systemRuntime } from '../../src/runtime.ts'
import { MemoryCircuitStorage } from '../../src/storage/memory.ts'
import { waitFor } from '../support/time.ts'

const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js')
const noon = Date.UTC(2030, 0, 31, 12)

let browser: Browser
/** Closed after each test. */
const closers: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  browser = await startBrowser()
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})
afterAll(() => browser?.close())

/** A page that is looked at, and everything that it has complained of or asked other machines for. */
interface Look {
  readonly page: Page
  readonly served: ServedPage
  readonly complaints: string[]
}

async function look(
  storage: MemoryCircuitStorage,
  options: Partial<ServeOptions> & { readonly now?: number; readonly context?: BrowserContextOptions } = {},
): Promise<Look> {
  const { now, context, ...rest } = options
  const clock = now === undefined ? systemRuntime : { ...systemRuntime, now: () => now }
  const served = await servePage(placeIn(storage), { port: 0, allowWrites: false, clock, ...rest })
  closers.push(() => served.close())
  const page = await browser.newPage(context)
  closers.push(() => page.close())
  const complaints: string[] = []
  const own = new URL(served.address).origin
  page.on('console', (message) => complaints.push(`${message.type()}: ${message.text()}`))
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('request', (request) => {
    const url = request.url()
    if (!url.startsWith(`${own}/`) && !url.startsWith('data:')) complaints.push(`asked for ${url}`)
  })
  await page.goto(served.address)
  return { page, served, complaints }
}

const card = (page: Page, key: string) =>
  page.getByRole('listitem').filter({ has: page.getByRole('heading', { name: key, exact: true }) })
const shows = (page: Page, key: string, text: string | RegExp) =>
  card(page, key).filter({ hasText: text }).waitFor({ timeout: 60_000 })

async function expectNoOverflow(page: Page): Promise<void> {
  const wide = await page.evaluate(
    `[...document.querySelectorAll('body, main *')].filter((each) => !each.closest('svg') && each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 80))`,
  )
  expect(wide).toEqual([])
  expect(await page.evaluate('document.documentElement.scrollWidth <= innerWidth')).toBe(true)
}

async function expectAccessible(page: Page): Promise<void> {
  const { violations } = (await page.evaluate('axe.run()')) as {
    violations: { id: string; nodes: { html: string; failureSummary: string }[] }[]
  }
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html} ${nodes[0]?.failureSummary}`)
  expect(told).toEqual([])
}

/** The page's policy lets no test add a script: it is in a world of its own. */
async function withAxe(page: Page): Promise<void> {
  const session = await page.context().newCDPSession(page)
  const { readFile } = await import('node:fs/promises')
  await session.send('Runtime.evaluate', { expression: `${await readFile(axe, 'utf8')};void 0` })
}

describe('The page', () => {
  test('shows an outage and the recovery while they happen', async () => {
    const storage = new MemoryCircuitStorage()
    const now = Date.now()
    await put(storage, 'payments', {}, now)
    const { page, complaints } = await look(storage)
    await shows(page, 'payments', 'closed')
    expect(await page.getByRole('status').textContent()).toBe('1 circuit, 0 open')

    const options = { services: ['payments'], storage, failureThreshold: 2, resetTimeout: 1_000, journal: true }
    const breaker = new CircuitBreaker(options, { env: {} })
    closers.push(() => breaker.close())
    const fail = () =>
      breaker.call('payments', async () => Promise.reject(Object.assign(new Error('no'), { code: 'ECONNRESET' })), {
        fallback: () => 'queued',
      })
    await waitFor('the circuit is open', async () => {
      await fail()
      return (await storage.getState('payments'))?.state === 'OPEN'
    })
    await shows(page, 'payments', 'OPEN')
    await waitFor(
      'one is open',
      () => page.getByRole('status').textContent(),
      (text) => text === '1 circuit, 1 open',
    )
    await shows(page, 'payments', /Evidence.*failures/)
    await shows(page, 'payments', 'code ECONNRESET')
    expect(await page.title()).toBe('(1) Circuits')
    await card(page, 'payments').getByText('Journal').click()
    await shows(page, 'payments', 'CLOSED → OPEN: the service failed too often')
    await page.locator('#timeline .band.OPEN').first().waitFor({ state: 'attached', timeout: 60_000 })
    expect(await page.locator('#timeline path.failures').count()).toBeGreaterThan(0)

    await waitFor('the circuit is closed', async () => {
      await breaker.call('payments', async () => 'paid', { fallback: () => 'queued' })
      return (await storage.getState('payments'))?.state === 'CLOSED'
    })
    await shows(page, 'payments', 'HALF_OPEN → CLOSED: the probe succeeded')
    await waitFor(
      'none is open',
      () => page.getByRole('status').textContent(),
      (text) => text === '1 circuit, 0 open',
    )
    // What somebody has opened to read stays open.
    expect(await card(page, 'payments').locator('details').getAttribute('open')).not.toBeNull()
    expect(complaints).toEqual([])
  })

  test('forces and resets a circuit by keyboard alone, with a reason', async () => {
    const storage = new MemoryCircuitStorage()
    await put(storage, 'payments', {}, Date.now())
    const { page, complaints } = await look(storage, { allowWrites: true })
    await shows(page, 'payments', 'closed')
    expect(page.url()).not.toContain('token')
    const focused = () =>
      page.evaluate(`document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.id`)
    const tabTo = (name: string) =>
      waitFor(`the focus is on ${name}`, async () => {
        await page.keyboard.press('Tab')
        return (await focused()) === name
      })

    await tabTo('Force open payments')
    await page.keyboard.press('Enter')
    await page.getByRole('dialog', { name: 'Force open: payments' }).waitFor()
    expect(await focused()).toBe('why')
    // Without a reason nothing is sent.
    await page.keyboard.press('Enter')
    expect(await page.getByRole('dialog').isVisible()).toBe(true)
    await page.keyboard.type('The provider asks for it')
    await page.keyboard.press('Tab')
    await page.keyboard.type('10m')
    await page.keyboard.press('Enter')
    await shows(page, 'payments', 'FORCED OPEN')
    await shows(page, 'payments', /Forced by.*: The provider asks for it/)
    await waitFor('the focus is back', focused, (name) => name === 'Force open payments')

    await page.keyboard.press('Tab')
    await page.keyboard.press('Tab')
    expect(await focused()).toBe('Reset payments')
    await page.keyboard.press('Enter')
    await page.keyboard.press('Escape')
    expect(await page.getByRole('dialog').isVisible()).toBe(false)
    await page.keyboard.press('Enter')
    await page.keyboard.type('It is over')
    await page.keyboard.press('Enter')
    await waitFor(
      'it is reset',
      () => storage.getState('payments'),
      (record) => record?.override === undefined,
    )
    await shows(page, 'payments', /^payments\s*closed/)
    expect(complaints).toEqual([])
  })

  test('says in the dialog why a circuit was not changed', async () => {
    const storage = new MemoryCircuitStorage()
    await put(storage, 'payments', {}, Date.now())
    const { page } = await look(storage, { allowWrites: true })
    await page.getByRole('button', { name: 'Force open payments' }).click()
    await page.getByLabel('Why', { exact: true }).fill('a test')
    storage.compareAndSetState = () => Promise.reject(new Error('The table is gone'))
    storage.batchSetState = storage.compareAndSetState as never
    await page.keyboard.press('Enter')
    await page.getByRole('dialog').getByRole('alert').filter({ hasText: 'The store failed' }).waitFor()
    expect(await page.getByRole('dialog').isVisible()).toBe(true)
  })

  test('has nothing to force with where it may only look', async () => {
    const storage = await badDay(noon)
    const { page } = await look(storage, { now: noon })
    await shows(page, 'payments', 'OPEN')
    expect(await page.getByRole('button').count()).toBe(0)
  })

  test('tells a page without the token where to change circuits', async () => {
    const storage = await badDay(noon)
    const { page } = await look(storage, { now: noon, allowWrites: true })
    await page.getByRole('button', { name: 'Reset payments' }).waitFor()
    await page.reload()
    await page.getByText('it holds the token').waitFor()
    expect(await page.getByRole('button').count()).toBe(0)
  })

  test.each(['light', 'dark'] as const)('is accessible, and readable in its %s colours', async (colorScheme) => {
    const storage = await badDay(noon)
    const { page, complaints } = await look(storage, { now: noon, allowWrites: true, context: { colorScheme } })
    await shows(page, 'payments', 'OPEN')
    await withAxe(page)
    await expectAccessible(page)
    await page.getByRole('button', { name: 'Force closed payments' }).click()
    await expectAccessible(page)
    await expectNoOverflow(page)
    expect(complaints).toEqual([])
  })

  test('fits a small screen', async () => {
    const { page } = await look(await badDay(noon), {
      now: noon,
      allowWrites: true,
      context: { viewport: { width: 320, height: 600 } },
    })
    await shows(page, 'payments', 'OPEN')
    await expectNoOverflow(page)
  })

  test('neither runs nor is broken by what a hostile store hands out', async () => {
    const storage = new MemoryCircuitStorage()
    const markup = `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>\u001b[2J\u202e`
    const long = 'x'.repeat(4_000)
    const override = { state: 'OPEN' as const, at: noon - 1_000, by: markup, why: markup + long }
    await put(storage, markup, { override }, noon)
    await put(
      storage,
      long,
      {
        state: 'OPEN',
        openedAt: noon - 1_000,
        retryAt: 8e15,
        failureCount: 3,
        lastFailure: { name: markup + long, code: long, at: noon },
      },
      noon,
    )
    for (const key of [markup, long]) {
      await note(storage, key, noon - 1_000, {
        from: 'CLOSED',
        to: 'OPEN',
        reason: 'forced-open',
        by: markup,
        why: long,
        functionName: markup,
      })
      await note(storage, key, noon - 500, {
        from: markup as never,
        to: 'OPEN',
        reason: markup as never,
        evidence: markup as never,
        at: Number.NaN,
      })
    }
    await put(storage, 'payments', {}, noon)
    for (const width of [320, 1_200]) {
      const { page, complaints } = await look(storage, {
        now: noon,
        allowWrites: true,
        context: { viewport: { width, height: 800 } },
      })
      await shows(page, 'payments', 'closed')
      await page.locator('.card').nth(2).waitFor()
      for (const summary of await page.locator('summary').all()) if (await summary.isVisible()) await summary.click()
      expect(await page.title()).toBe('(1) Circuits')
      expect(await page.getByText('DAMAGED').count()).toBe(1)
      expect(await page.locator('main img, main script, dialog img').count()).toBe(0)
      await expectNoOverflow(page)
      await page.getByRole('button', { name: 'Reset' }).first().click()
      await expectNoOverflow(page)
      expect(complaints).toEqual([])
    }
  })

  test('shows 300 circuits, the unwell ones first, and finds one by its name', async () => {
    const storage = await badDay(noon)
    for (let i = 0; i < 300; i++) await put(storage, `service-${i}`, {}, noon)
    const { page, complaints } = await look(storage, { now: noon })
    await page.locator('.card').nth(305).waitFor({ timeout: 60_000 })
    expect(await page.locator('.card h3').first().textContent()).toBe('sms')
    expect(await page.locator('#timeline svg').count()).toBe(60)
    await page.getByRole('searchbox', { name: 'Filter' }).fill('service-299')
    await waitFor(
      'one is left',
      () => page.locator('.card').count(),
      (count) => count === 1,
    )
    await expectNoOverflow(page)
    expect(complaints).toEqual([])
  })

  test('says so when the store fails, and when it is served no more', async () => {
    const storage = new MemoryCircuitStorage()
    await put(storage, 'payments', {}, Date.now())
    const { page, served } = await look(storage)
    await shows(page, 'payments', 'closed')
    storage.batchGetState = () => Promise.reject(new Error('The table is gone'))
    await page.getByRole('alert').filter({ hasText: 'The store fails: The table is gone' }).waitFor({ timeout: 60_000 })
    await served.close()
    await page.getByRole('alert').filter({ hasText: 'mcb serve has ended.' }).waitFor()
    await shows(page, 'payments', 'closed')
  })

  test('shows fleets side by side', async () => {
    const bands = [{ from: noon, to: noon + 1_000, state: 'OPEN' as const, isForced: false }]
    const fleet = (title: string, figure: number) => ({
      title,
      figure,
      unit: 'calls reached the dead service',
      counts: [{ at: noon, failed: figure, refused: 2 }],
      lanes: Array.from({ length: 24 }, (_, i) => ({ name: `instance ${i}`, bands })),
    })
    const comparison = () => ({
      title: 'One outage',
      text: 'It hangs.',
      from: noon,
      to: noon + 24_000,
      fleets: [fleet('No breaker', 1_440), fleet('Shared', 9)],
    })
    const { page, complaints } = await look(await badDay(noon), { now: noon, comparison })
    await page.getByRole('heading', { name: 'One outage' }).waitFor()
    await page.getByText('1,440 calls reached the dead service').waitFor()
    expect(await page.locator('.fleet .band').count()).toBe(48)
    await withAxe(page)
    await expectAccessible(page)
    expect(complaints).toEqual([])
  })
})
