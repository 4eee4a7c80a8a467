/** A line that a function wrote. */
export interface LogLine {
  /** As it was written. */
  readonly text: string
  /** What the handler gave to `console.log` and its like; the whole line if it was written by other means. */
  readonly message: string
  readonly level?: string
  /** Of the invocation in which it was written, as far as the runtime client knows; `-` outside of invocations. */
  readonly requestId?: string
}

/** Reads what the runtime client makes of `console.log`: fields between tabs, or JSON where invocations run at once. */
export function parseLogLine(text: string): LogLine {
  const [, requestId, level, message] = /^[\d-]+T[\d:.]+Z\t(\S*)\t([A-Z]+)\t(.*)$/s.exec(text) ?? []
  if (requestId !== undefined && level && message !== undefined) {
    return { text, requestId, level, message: message.replaceAll('\r', '\n') }
  }
  try {
    const line = JSON.parse(text) as { requestId?: unknown; level?: unknown; message?: unknown }
    if (typeof line.requestId !== 'string' || typeof line.level !== 'string') return { text, message: text }
    const own = typeof line.message === 'string' ? line.message : JSON.stringify(line.message)
    return { text, requestId: line.requestId, level: line.level, message: own }
  } catch {
    return { text, message: text }
  }
}
