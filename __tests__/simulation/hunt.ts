/** Hunts all mutants, in a process of its own, where Node itself runs the sources: prints one verdict a line. */
import { hunt, mutants } from './mutants.ts'

for (const mutant of mutants) console.log(JSON.stringify(await hunt(mutant, Number(process.argv[2]))))
