export type PrintedLine = Readonly<Record<string, unknown>>

/** What functions print. */
export interface Printed extends Disposable {
  /** The lines that are JSON, in this order. */
  readonly lines: readonly PrintedLine[]
  /** All of it, as it was printed. */
  readonly text: string
  /** Forgets what was printed so far. */
  clear(): void
}

/** Keeps what is printed to the standard output and to standard error, until it is disposed of. What is no JSON passes. */
export function capturePrinted(): Printed {
  let text = ''
  let lines: PrintedLine[] = []
  const capture = (stream: NodeJS.WriteStream): (() => void) => {
    const write = stream.write
    stream.write = (chunk: string | Uint8Array, ...rest: never[]): boolean => {
      text += chunk
      const printed = String(chunk).split('\n').filter(Boolean).map(parsed)
      lines.push(...printed.filter((line) => line !== undefined))
      return printed.includes(undefined) ? write.call(stream, chunk, ...rest) : true
    }
    return () => {
      stream.write = write
    }
  }
  const restore = [process.stdout, process.stderr].map(capture)
  return {
    get lines() {
      return lines
    },
    get text() {
      return text
    },
    clear: () => {
      text = ''
      lines = []
    },
    [Symbol.dispose]: () => {
      for (const each of restore) each()
    },
  }
}

function parsed(line: string): PrintedLine | undefined {
  try {
    return line.startsWith('{') ? JSON.parse(line) : undefined
  } catch {
    return undefined
  }
}
