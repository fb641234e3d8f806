/** HTTP on a Unix socket for the other commands. */

/** Answers one request. Anything thrown ends that request with 500 and one sentence. */
export type ControlRoute = (request: Request, url: URL) => Response | Promise<Response>;

/** Routes by "METHOD /path". */
export type ControlRoutes = Readonly<Record<string, ControlRoute>>;
