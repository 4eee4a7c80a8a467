/** Placeholder until the page is there. */
import type { Run } from './commands.ts'
export const serve: Run = async () => 1
