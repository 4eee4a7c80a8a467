/**
 * Moderation without a service: a list of words. It is sure of what it finds as it stands on the list, and of nothing
 * else: a word in disguise, a link, a script that it cannot read is for a person to decide.
 *
 * @module
 */

/** `review`: held back until a person has looked at it. */
export type Decision = 'accepted' | 'rejected' | 'review'

export interface Verdict {
  readonly decision: Decision
  /** Why it was not accepted. */
  readonly reasons: readonly string[]
}

const lookalikes: Readonly<Record<string, string>> = {
  '0': 'o',
  '1': 'i',
  '3': 'e',
  '4': 'a',
  '5': 's',
  '7': 't',
  '@': 'a',
  $: 's',
  '!': 'i',
}

// Where a platform has lists of its own, they are what it knows best.
const { BLOCKED_WORDS = 'idiot,imbecile,moron,scumbag', SUSPECT_WORDS = 'hate,kill,stupid,ugly' } = process.env
const blocked = new Set(listed(BLOCKED_WORDS))
const suspect = new Set(listed(SUSPECT_WORDS))
/** Shorter ones are in too many others, and nothing, which is left of a word in another script, is in all of them. */
const disguisable = [...blocked].map(undisguise).filter((letters) => letters.length >= 4)

export function checkByKeywords(text: string): Verdict {
  const words = normalize(text).match(/[\p{L}\p{M}\p{N}]+/gu) ?? []
  if (words.some((word) => blocked.has(word))) return { decision: 'rejected', reasons: ['BLOCKED_WORD'] }
  const letters = undisguise(text)
  const reasons = [
    ...(words.some((word) => suspect.has(word)) ? ['SUSPECT_WORD'] : []),
    ...(disguisable.some((word) => letters.includes(word)) ? ['DISGUISED_WORD'] : []),
    ...(/https?:|www\./i.test(text) ? ['LINK'] : []),
    ...(/(?!\p{Script=Latin})\p{L}/u.test(text) ? ['UNKNOWN_SCRIPT'] : []),
  ]
  return { decision: reasons.length > 0 ? 'review' : 'accepted', reasons }
}

/** `1 D-i-Ó-ó T` is `idiot`. What is found like this may be innocent: whoever looks at it will see. */
function undisguise(text: string): string {
  return text
    .normalize('NFKD')
    .toLowerCase()
    .replace(/[013457@$!]/g, (sign) => lookalikes[sign] ?? '')
    .replace(/[^a-z]/g, '')
    .replace(/(.)\1+/g, '$1')
}

function listed(words: string): string[] {
  return words.split(',').flatMap((word) => normalize(word).trim() || [])
}

/** So that a word is the same however it was typed: `é` may be one character or two, and `ｅ` is an `e`. */
function normalize(text: string): string {
  return text.normalize('NFKC').toLowerCase()
}
