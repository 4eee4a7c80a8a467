/** How large the package is in a bundle. */

import { bundle, librarySize, sizeLimit } from '../bundle.ts'
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
  const libraries = ['@middy/core', '@aws-sdk/client-dynamodb', 'ioredis'] as const
  const beside = await Promise.all(
    libraries.map(async (name) => {
      const { minified, gzipped } = await librarySize(name)
      return [`\`${name}\` alone`, '–', '–', size(minified), size(gzipped)]
    }),
  )
  const all = memory.modules.reduce((sum, [, bytes]) => sum + bytes, 0)
  return {
    title: 'In a bundle',
    blocks: [
      `A handler with one service, bundled by esbuild: minified, for Node 22, ES modules with splitting; without Middy, the AWS SDK
and ioredis. What each adapter needs is a chunk of its own, loaded only where it was chosen.`,
      {
        header: ['store', 'loaded with the handler', 'gzipped', 'loaded with the store', 'gzipped'],
        rows: [row('memory', memory), row('DynamoDB', dynamodb), row('Redis', redis), ...beside],
      },
      `\`npm test\` fails when the first figure for memory, gzipped, grows beyond ${size(sizeLimit)} (\`bench/bundle.ts\`): 2 % above what it was
when it was last looked at. What it consists of, minified:`,
      {
        header: ['what', 'bytes', 'share'],
        rows: groupsOf(memory.modules).map(([name, files, bytes]) => [
          `**${name}**: ${files.join(', ')}`,
          String(bytes),
          `${((100 * bytes) / all).toFixed(1)} %`,
        ]),
      },
      `The target of 8 KB is missed by far, and there is no dead code to blame: esbuild drops the exports that a handler does not use,
and gives private members short names. More than half is the protocol that makes one circuit of many instances (epochs, leases,
failures that are held back, writes behind the handler, a store that fails) and the calls around it; a fifth checks settings and
names every mistake; the classification of errors and the texts are the rest. The work of operators and the texts of configuration warnings
are loaded when they are asked for. Splitting costs about half a KB, because what the handler shares with chunks that are loaded later is
compressed on its own. What could be left out would be a guarantee, or checks that would then come in the first
invocation instead of in init.`,
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
  'settings, and what is wrong with them': /^src\/(settings\/|warnings\.ts$)|\/(factory|option-rules|options)\.ts$/,
  'what a store is, one that fails, one in memory': /^src\/storage\//,
  'which errors count, and errors of its own': /\/(classification|errors)\.ts$/,
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
