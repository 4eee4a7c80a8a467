import { expect, it } from '@jest/globals'
import { whyNotLoaded } from '../../../src/storage/load-failures.ts'

it.each([
  [
    "Cannot find package 'ioredis' imported from /var/task/index.mjs",
    'ioredis. Install it (npm install ioredis), or let your bundler include it.',
  ],
  ["Cannot find module 'ioredis'", 'ioredis. Install it (npm install ioredis), or let your bundler include it.'],
  // A package that ioredis needs.
  ["Cannot find module 'standard-as-callback'", "ioredis: Cannot find module 'standard-as-callback'"],
  ['Unexpected token', 'ioredis: Unexpected token'],
])('of a library that is not loaded because of %p tells that', (message, text) => {
  expect(whyNotLoaded('ioredis', new Error(message))).toBe(text)
})

it('tells what was thrown in place of an error', () => {
  expect([whyNotLoaded('ioredis', 'broken'), whyNotLoaded('ioredis', undefined)]).toEqual([
    'ioredis: broken',
    'ioredis: undefined',
  ])
})
