import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from '@jest/globals'
import { createTestContext } from 'middy-circuit-breaker/testing'
import { type DynamoDBServer, startDynamoDBLocal } from '../support/dynamodb-local.ts'
import { patientVariables } from '../support/patience.ts'
import { coldStart } from './cold-start.ts'
import { httpEvent } from './http-event.ts'
import { recogniseErrorsOfNode } from './node-errors.ts'
import { type Provider, type ProviderRequest, type Reaction, startProvider } from './provider.ts'
import { type StoppedTime, stopTime } from './stopped-time.ts'

interface Segments {
  readonly LanguageCode: string
  readonly TextSegments: readonly { readonly Text: string }[]
}

/** Finds insults where there is `rude`, and is in doubt where there is `hm`. */
const healthy = ({ body }: ProviderRequest): Reaction => {
  const { TextSegments }: Segments = JSON.parse(body)
  const ResultList = TextSegments.map(({ Text }) => {
    const score = Text.includes('rude') ? 0.97 : Text.includes('hm') ? 0.6 : 0.03
    return {
      Labels: [
        { Name: 'INSULT', Score: score },
        { Name: 'GRAPHIC', Score: 0.01 },
      ],
      Toxicity: score,
    }
  })
  return { body: { ResultList } }
}
const exception = (name: string, status = 400): Reaction => ({ status, body: { __type: name, message: 'No.' } })
const failing = exception('InternalServerException', 500)

/** The time that the function gives Comprehend. */
const timeout = 1_500

recogniseErrorsOfNode()

let dynamodb: DynamoDBServer

beforeAll(async () => {
  dynamodb = await startDynamoDBLocal()
})
afterAll(() => dynamodb.stop())

let time: StoppedTime
beforeEach(() => {
  time = stopTime()
  jest.spyOn(console, 'warn').mockImplementation(() => {})
})
afterEach(() => {
  jest.restoreAllMocks()
  time[Symbol.dispose]()
})

interface Answer {
  readonly status: number | undefined
  readonly decision?: string
  readonly checkedBy?: string
  readonly reasons?: readonly string[]
}

/** Starts an instance of the function, which moderates what is in the body of a request. */
type Start = (
  variables?: Readonly<Record<string, string>>,
) => Promise<(body: unknown, base64?: boolean) => Promise<Answer>>

async function deploy(comprehend: Provider): Promise<Start> {
  const table = await dynamodb.createTable()
  return async (variables = {}) => {
    const { handler } = await coldStart(() => import('../../examples/content-moderation/handler.ts'), {
      AWS_ENDPOINT_URL_COMPREHEND: comprehend.url,
      ...dynamodb.variables,
      ...patientVariables,
      CIRCUIT_BREAKER_TABLE_NAME: table,
      ...variables,
    })
    return async (body, base64 = false) => {
      const event = httpEvent({ route: 'POST /moderate', body, base64 })
      const { statusCode, body: answered = '' } = await handler(event, createTestContext())
      return { status: statusCode, ...JSON.parse(answered) }
    }
  }
}

describe('the moderation function', () => {
  it('lets Comprehend decide', async () => {
    await using comprehend = await startProvider(healthy)
    const moderate = await (await deploy(comprehend))()

    const answers = [
      await moderate({ text: 'What a lovely day.' }),
      await moderate({ text: 'Well, hm.' }),
      await moderate({ text: 'Something rude.' }, true),
      // Comprehend decides, not the words.
      await moderate({ text: 'My sister calls me an idiot, lovingly.' }),
    ]

    expect(answers).toEqual([
      { status: 200, decision: 'accepted', reasons: [], checkedBy: 'comprehend' },
      { status: 200, decision: 'review', reasons: ['INSULT'], checkedBy: 'comprehend' },
      { status: 200, decision: 'rejected', reasons: ['INSULT'], checkedBy: 'comprehend' },
      { status: 200, decision: 'accepted', reasons: [], checkedBy: 'comprehend' },
    ])
    expect(comprehend.requests[0]?.headers['x-amz-target']).toBe('Comprehend_20171127.DetectToxicContent')
    expect(JSON.parse(comprehend.requests[0]?.body ?? '')).toEqual({
      LanguageCode: 'en',
      TextSegments: [{ Text: 'What a lovely day.' }],
    })
  })

  it.each([
    [0.49, 0, 'accepted'],
    [0.5, 0, 'review'],
    [0.79, 0, 'review'],
    [0.8, 0, 'rejected'],
    // The text as a whole may be better than what is in it.
    [0.1, 0.49, 'accepted'],
    [0.1, 0.5, 'review', 'INSULT'],
    [0.1, 0.8, 'rejected', 'INSULT'],
  ])('of a toxicity of %d with an insult of %d makes: %s', async (Toxicity, Score, decision, ...reasons) => {
    const Labels = [
      { Name: 'INSULT', Score },
      { Name: 'GRAPHIC', Score: 0 },
    ]
    await using comprehend = await startProvider({ body: { ResultList: [{ Labels, Toxicity }] } })
    const moderate = await (await deploy(comprehend))()

    expect(await moderate({ text: 'A text.' })).toMatchObject({ decision, reasons, checkedBy: 'comprehend' })
  })

  it('lets a list of words decide while Comprehend fails, and asks it no more after three failures', async () => {
    await using comprehend = await startProvider(failing)
    const start = await deploy(comprehend)
    const moderate = await start()

    const answers = []
    for (let i = 0; i < 6; i++) answers.push(await moderate({ text: 'What a lovely day.' }))

    const accepted = { status: 200, decision: 'accepted', reasons: [], checkedBy: 'keywords' }
    expect(answers).toEqual(Array(6).fill(accepted))
    expect(comprehend.requests).toHaveLength(3)

    // An instance that has never asked knows at once.
    const moderateElsewhere = await start()
    expect(await moderateElsewhere({ text: 'What a lovely day.' })).toEqual(accepted)
    expect(comprehend.requests).toHaveLength(3)
  })

  it('holds back what the list of words is not sure of', async () => {
    await using comprehend = await startProvider(failing)
    const moderate = await (await deploy(comprehend))({ BLOCKED_WORDS: 'idiot, Scum', SUSPECT_WORDS: 'hate' })
    const decisions = async (texts: readonly string[]): Promise<readonly unknown[]> => {
      const answers = []
      for (const text of texts) {
        const { decision, reasons, checkedBy } = await moderate({ text })
        answers.push([text, checkedBy === 'keywords' && decision, ...(reasons ?? [])])
      }
      return answers
    }

    const found = await decisions([
      'Thank you, see you in Kraków at 13:45!',
      'You IDIOT.',
      'ｓｃｕｍ!',
      'I hate Mondays.',
      'You 1 D-i-Ó-o T.',
      'idi\u200bot',
      'idiiiiots',
      'See https://example.com',
      'Ты хороший.',
      'You \u0456diot.',
    ])

    expect(found).toEqual([
      ['Thank you, see you in Kraków at 13:45!', 'accepted'],
      ['You IDIOT.', 'rejected', 'BLOCKED_WORD'],
      ['ｓｃｕｍ!', 'rejected', 'BLOCKED_WORD'],
      ['I hate Mondays.', 'review', 'SUSPECT_WORD'],
      ['You 1 D-i-Ó-o T.', 'review', 'DISGUISED_WORD'],
      ['idi\u200bot', 'review', 'DISGUISED_WORD'],
      ['idiiiiots', 'review', 'DISGUISED_WORD'],
      ['See https://example.com', 'review', 'LINK'],
      ['Ты хороший.', 'review', 'UNKNOWN_SCRIPT'],
      ['You \u0456diot.', 'review', 'UNKNOWN_SCRIPT'],
    ])
  })

  it.each([
    ['a55hole,f@ke', 'What an A55HOLE.', 'rejected', 'BLOCKED_WORD'],
    ['a55hole,f@ke', 'What an asshole.', 'review', 'DISGUISED_WORD'],
    ['a55hole,f@ke', 'All f.a.k.e!', 'review', 'DISGUISED_WORD'],
    ['1488', '1488 is a number.', 'rejected', 'BLOCKED_WORD'],
    ['1488', 'India is a country.', 'accepted'],
    ['дурак', 'What a lovely day.', 'accepted'],
    ['дурак', 'Ты дурак.', 'rejected', 'BLOCKED_WORD'],
    // The accent is a character of its own in one of the two.
    ['cafe\u0301', 'The caf\u00e9.', 'rejected', 'BLOCKED_WORD'],
    ['caf\u00e9', 'The cafe\u0301.', 'rejected', 'BLOCKED_WORD'],
    ['ｓｃｕｍ', 'Scum!', 'rejected', 'BLOCKED_WORD'],
    ['ass', 'A classic.', 'accepted'],
  ])('takes any list of words: with %s on it, of %s', async (BLOCKED_WORDS, text, decision, ...reasons) => {
    const filter = await coldStart(() => import('../../examples/content-moderation/keyword-filter.ts'), {
      BLOCKED_WORDS,
    })

    expect(filter.checkByKeywords(text)).toEqual({ decision, reasons })
  })

  it('lets Comprehend decide again as soon as it is back', async () => {
    await using comprehend = await startProvider(failing)
    const moderate = await (await deploy(comprehend))()
    for (let i = 0; i < 3; i++) await moderate({ text: 'Something rude.' })
    comprehend.react(healthy)

    await time.advance(9_999)
    expect(await moderate({ text: 'Something rude.' })).toMatchObject({ checkedBy: 'keywords' })
    expect(comprehend.requests).toHaveLength(3)

    // The circuit stays open for 10 s, and the instance that opened it lets others probe first, for a second.
    await time.advance(1_001)
    const answer = await moderate({ text: 'Something rude.' })
    expect(answer).toMatchObject({ decision: 'rejected', checkedBy: 'comprehend' })
    expect(comprehend.requests).toHaveLength(3 + 1)
  })

  it.each<[string, Reaction]>([
    ['breaks the connection', 'breaks'],
    ['says nothing', 'hangs'],
    ['answers with a page and 503', { status: 503, headers: { 'content-type': 'text/html' }, body: '<h1>503</h1>' }],
    ['answers with a page and 200', { headers: { 'content-type': 'text/html' }, body: '<h1>Welcome</h1>' }],
    ['answers with nothing', { body: {} }],
    ['leaves a text out', { body: { ResultList: [] } }],
    ['does not say how toxic a text is', { body: { ResultList: [{ Labels: [] }] } }],
  ])('opens the circuit and publishes nothing unchecked if Comprehend %s', async (_, reaction) => {
    await using comprehend = await startProvider(() => (reaction === 'hangs' ? time.hang(timeout) : reaction))
    const moderate = await (await deploy(comprehend))()

    const answers = []
    for (let i = 0; i < 5; i++) answers.push(await moderate({ text: 'You idiot.' }))

    const rejected = { status: 200, decision: 'rejected', reasons: ['BLOCKED_WORD'], checkedBy: 'keywords' }
    expect(answers).toEqual(Array(5).fill(rejected))
    expect(comprehend.requests).toHaveLength(3)
  })

  it('gives up the request whose time is over', async () => {
    // And not by the deadline of the invocation, after 29 s.
    await using comprehend = await startProvider(() => time.hang(timeout))
    const moderate = await (await deploy(comprehend))()

    expect(await moderate({ text: 'Hello.' })).toMatchObject({ checkedBy: 'keywords' })

    await comprehend.givenUp(1)
    expect(comprehend.requests).toHaveLength(1)
  })

  it.each([
    ['TextSizeLimitExceededException', 413],
    ['InvalidRequestException', 422],
    ['UnsupportedLanguageException', 422],
  ])('tells the author, and holds it against nobody, when Comprehend answers %s', async (name, status) => {
    await using comprehend = await startProvider(exception(name))
    const moderate = await (await deploy(comprehend))()

    for (let i = 0; i < 5; i++) expect(await moderate({ text: 'A text.' })).toMatchObject({ status })

    expect(comprehend.requests).toHaveLength(5)
    comprehend.react(healthy)
    expect(await moderate({ text: 'A text.' })).toMatchObject({ checkedBy: 'comprehend' })
  })

  it.each<[string, Reaction]>([
    ['ThrottlingException', exception('ThrottlingException')],
    ['TooManyRequestsException', exception('TooManyRequestsException')],
    ['a 429 without a name', { status: 429, body: { message: 'Rate exceeded' } }],
  ])(
    'lets the words decide for those who are throttled with %s, and goes on asking for others',
    async (_, throttled) => {
      await using comprehend = await startProvider(throttled)
      const moderate = await (await deploy(comprehend))()

      for (let i = 0; i < 5; i++) {
        expect(await moderate({ text: 'You idiot.' })).toMatchObject({ decision: 'rejected', checkedBy: 'keywords' })
      }

      expect(comprehend.requests).toHaveLength(5)
      comprehend.react(healthy)
      expect(await moderate({ text: 'You idiot.' })).toMatchObject({ checkedBy: 'comprehend' })
    },
  )

  it('fails where it may not ask Comprehend, and does not go on without it unnoticed', async () => {
    await using comprehend = await startProvider(exception('AccessDeniedException'))
    const moderate = await (await deploy(comprehend))()

    for (let i = 0; i < 5; i++) {
      await expect(moderate({ text: 'A text.' })).rejects.toMatchObject({ name: 'AccessDeniedException' })
    }

    expect(comprehend.requests).toHaveLength(5)
  })

  it('sends a long text in pieces that Comprehend takes, cut between words, and the worst of them decides', async () => {
    await using comprehend = await startProvider(healthy)
    const moderate = await (await deploy(comprehend))()
    const text = `${'schöne Wörter\n\n'.repeat(200)}rude ${'weitere Wörter '.repeat(200)}`

    expect(await moderate({ text })).toMatchObject({ decision: 'rejected', checkedBy: 'comprehend' })

    expect(comprehend.requests).toHaveLength(1)
    const { TextSegments }: Segments = JSON.parse(comprehend.requests[0]?.body ?? '')
    const sizes = TextSegments.map(({ Text }) => Buffer.byteLength(Text))
    expect(sizes.length).toBe(7)
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1_000)
    const words = TextSegments.flatMap(({ Text }) => Text.split(' '))
    expect(words).toEqual(text.trim().split(/\s+/))
  })

  it('cuts a word that is too long, between characters', async () => {
    await using comprehend = await startProvider(healthy)
    const moderate = await (await deploy(comprehend))()

    expect(await moderate({ text: `a${'🙂'.repeat(600)}` })).toMatchObject({ status: 200 })

    const { TextSegments }: Segments = JSON.parse(comprehend.requests[0]?.body ?? '')
    expect(TextSegments.map(({ Text }) => Text)).toEqual([`a${'🙂'.repeat(249)}`, '🙂'.repeat(250), '🙂'.repeat(101)])
  })

  it('refuses what nobody can check, without a call', async () => {
    await using comprehend = await startProvider(healthy)
    const moderate = await (await deploy(comprehend))()

    expect(await moderate({ text: 'word '.repeat(2_001) })).toMatchObject({ status: 413 })
    expect(await moderate({ text: `${'x'.repeat(999)} `.repeat(10) })).toMatchObject({ status: 200 })
    expect(await moderate({ text: `${'x'.repeat(600)} `.repeat(11) })).toMatchObject({ status: 413 })
    for (const body of [undefined, '', 'text', 'null', '[]', {}, { text: 7 }, { text: ' \n' }]) {
      expect({ body, ...(await moderate(body)) }).toMatchObject({ body, status: 400 })
    }

    expect(comprehend.requests).toHaveLength(1)
  })
})
