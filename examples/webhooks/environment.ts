/** A variable that the function cannot do without: that it is missing is found at the deployment, not in the first outage. */
export function required(name: string): string {
  const value = process.env[name]
  if (!value) throw new Error(`The environment variable ${name} is not set.`)
  return value
}

/** A time that a variable may set, in milliseconds. */
export function milliseconds(name: string, unlessSet: number): number {
  const time = Number(process.env[name] || unlessSet)
  if (Number.isInteger(time) && time >= 1) return time
  throw new Error(`The environment variable ${name} must be a whole number of milliseconds.`)
}
