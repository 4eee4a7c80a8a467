/**
 * Hunts mutants in a process of its own, where Node itself runs the sources: `node hunt.ts <seeds> <share> <shares>`.
 * Prints for each mutant of its share a line with its index and the verdict.
 */
import { hunt, mutants } from './mutants.ts'

const [seeds = 0, share = 0, shares = 1] = process.argv.slice(2).map(Number)
for (const [index, mutant] of mutants.entries()) {
  if (index % shares === share) console.log(JSON.stringify([index, await hunt(mutant, seeds)]))
}
