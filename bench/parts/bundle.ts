/** How large the package is in a bundle. */

import { bundle, sizeLimit } from '../bundle.ts'
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
  const all = memory.modules.reduce((sum, [, bytes]) => sum + bytes, 0)
  return {
    title: 'In a bundle',
    blocks: [
      `A handler with one service, bundled by esbuild: minified, for Node 22, ES modules with splitting; without Middy, the AWS SDK
and ioredis. What each adapter needs is a chunk of its own, loaded only where it was chosen.`,
      {
        header: ['store', 'loaded with the handler', 'gzipped', 'loaded with the store', 'gzipped'],
        rows: [row('memory', memory), row('DynamoDB', dynamodb), row('Redis', redis)],
      },
      `\`npm test\` fails when the first figure for memory, gzipped, grows beyond ${size(sizeLimit)} (\`bench/bundle.ts\`): 2 % above what it was
when it was last looked at. What it consists of, minified:`,
      {
        header: ['file', 'bytes', 'share'],
        rows: memory.modules.map(([file, bytes]) => [
          file === '<stdin>' ? 'the handler' : `\`${file}\``,
          String(bytes),
          `${((100 * bytes) / all).toFixed(1)} %`,
        ]),
      },
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
