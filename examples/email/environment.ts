/** A variable that the function cannot do without: that it is missing is found at the deployment, not in the first outage. */
export function required(name: string): string {
  const value = process.env[name]
  if (!value) throw new Error(`The environment variable ${name} is not set.`)
  return value
}
