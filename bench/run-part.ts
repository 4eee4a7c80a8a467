/**
 * One part of the benchmarks in a process of its own, so that what another part has made the compiler believe counts for
 * nothing here: `node bench/run-part.ts calls [--quick]`, started by `main.ts`.
 */

import type { Effort, Section } from './section.ts'

const [name, ...flags] = process.argv.slice(2)
const { run } = (await import(`./parts/${name}.ts`)) as { run: (effort: Effort) => Promise<Section> }
const section = await run({ quick: flags.includes('--quick') })
// The peers keep timers that would keep the process.
process.send?.(section, () => process.exit(0))
