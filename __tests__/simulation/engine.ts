import * as source from '../../src/index.ts'

/** What a simulation runs: the engine itself, or one that was broken on purpose. */
export type Engine = typeof source

/** The engine as it is. */
export const engine: Engine = source
