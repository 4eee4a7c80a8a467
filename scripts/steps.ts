/**
 * Steps of a check that reports each of them and goes on after a failure.
 *
 * @module
 */

let failures = 0

/** The number of steps that have failed. */
export function failedSteps(): number {
  return failures
}

/** Runs one step and reports it: `ok` or `FAIL`, its name, what it found, how long it took. */
export async function step(name: string, action: () => Promise<string | undefined>): Promise<boolean> {
  const startedAt = performance.now()
  try {
    const found = await action()
    console.log(`ok    ${name}${found ? `: ${found}` : ''} (${Math.round(performance.now() - startedAt)} ms)`)
    return true
  } catch (error) {
    failures += 1
    const { message, stdout, stderr } = error as Error & { stdout?: string; stderr?: string }
    const details = [message, stdout, stderr].filter(Boolean).join('\n').trim()
    console.log(`FAIL  ${name}\n${details.replaceAll(/^/gm, '      ')}`)
    return false
  }
}
