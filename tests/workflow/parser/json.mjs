// The parser imports JSON without saying that it is JSON, which Node takes only when told.
import { register } from 'node:module';

const hooks = `export const load = (url, context, next) =>
  next(url, url.endsWith('.json') ? { ...context, importAttributes: { type: 'json' } } : context);`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
