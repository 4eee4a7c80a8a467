/** How large the package is in a bundle. */

import { bundle, librarySize, oneFile, sizeLimit } from '../bundle.ts'
import { type Section, size } from '../section.ts'

export async function run(): Promise<Section> {
  const [memory, dynamodb, redis] = await Promise.all([bundle('memory'), bundle('dynamodb'), bundle('redis')])
  const row = (name: string, { start, adapter }: typeof memory): string[] => [
    name,
    size(start.minified),
    size(start.gzipped),
    adapter ? size(adapter.minified) : '–',
    adapter ? size(adapter.gzipped) : '–',
  ]
  const libraries = ['@middy/core', '@aws-sdk/client-dynamodb', 'ioredis', 'opossum', 'cockatiel'] as const
  const beside = await Promise.all(
    libraries.map(async (name) => {
      const { minified, gzipped } = await librarySize(name)
      return [`\`${name}\` alone`, '–', '–', size(minified), size(gzipped)]
    }),
  )
  const [single, readable] = await Promise.all([oneFile('dynamodb', true), oneFile('dynamodb', false)])
  const all = memory.modules.reduce((sum, [, bytes]) => sum + bytes, 0)
  return {
    title: 'In a bundle',
    blocks: [
      `A handler with one service, bundled by esbuild for Node 22 as ES modules with splitting, minified, without Middy, the AWS SDK
and ioredis. Each adapter is a chunk of its own, which is loaded only if the adapter is chosen.`,
      {
        header: ['store', 'loaded with the handler', 'gzipped', 'loaded with the store', 'gzipped'],
        rows: [row('memory', memory), row('DynamoDB', dynamodb), row('Redis', redis), ...beside],
      },
      `In one file, without splitting, the same handler has every adapter in it: ${size(single.minified)} minified, ${size(single.gzipped)} gzipped. Not
minified, as the templates of the [examples](../../examples/README.md) build it, it is ${size(readable.minified)}, and ${size(readable.gzipped)} gzipped.`,
      `\`npm test\` fails if the first figure for memory, gzipped, grows beyond ${size(sizeLimit)} (\`bench/bundle.ts\`), which is 2 % above the
last size that was accepted. The parts, minified:`,
      {
        header: ['what', 'bytes', 'share'],
        rows: groupsOf(memory.modules).map(([name, files, bytes]) => [
          `**${name}**: ${files.join(', ')}`,
          String(bytes),
          `${((100 * bytes) / all).toFixed(1)} %`,
        ]),
      },
      `The target of 8 KB is missed by far. Dead code is not the reason: esbuild drops the exports that a handler does not use, and shortens the
names of private members. The largest part is the protocol that makes one circuit of many instances, and the calls around it. The check of
settings names every mistake. Code for operators and the texts of warnings are loaded when they are first needed. Splitting costs
about half a KB, because chunks are compressed one by one. A smaller package would give up a guarantee, or would check the settings in the
first invocation instead of in init.`,
    ],
    targets: [
      {
        what: 'Main entry with the memory adapter, minified and gzipped',
        wanted: 'at most 8 KB, or 9 for clear errors',
        measured: size(memory.start.gzipped),
        isMet: memory.start.gzipped <= 9 * 1024,
      },
    ],
  }
}

const groups: Readonly<Record<string, RegExp>> = {
  'one circuit for a fleet': /^src\/(circuit|sync)\/|^src\/events\.ts$/,
  'calls and invocations': /^src\/(call\/|(circuit-breaker|middleware|operators|runtime)\.ts$)|\/retry-after\.ts$/,
  'settings and their check': /^src\/(settings\/|warnings\.ts$)|\/(factory|option-rules|options)\.ts$/,
  'the contract of a store, stores that fail, the store in memory': /^src\/storage\//,
  'what counts as a failure, and the errors that it throws': /\/(classification|codes|causes|errors)\.ts$/,
}

type Modules = readonly (readonly [file: string, bytes: number])[]

function groupsOf(modules: Modules): [name: string, files: string[], bytes: number][] {
  const nameOf = (file: string) => Object.keys(groups).find((name) => groups[name]?.test(file)) ?? 'everything else'
  return [...Map.groupBy(modules, ([file]) => nameOf(file))]
    .map(([name, members]): [string, string[], number] => [
      name,
      members
        .filter(([, bytes]) => bytes > 0)
        .map(([file, bytes]) => `${file === '<stdin>' ? 'the handler' : `\`${file}\``} ${bytes}`),
      members.reduce((sum, [, bytes]) => sum + bytes, 0),
    ])
    .sort(([, , a], [, , b]) => b - a)
}
