// The chat's HTTP API: JSON, with a bearer token.

export const session = {
    // sessionStorage belongs to one tab, so that two tabs can be two people.
    get token() { return sessionStorage.getItem('token'); },
    set token(token) { token ? sessionStorage.setItem('token', token) : sessionStorage.removeItem('token'); },

    /** The WebSocket connection's id: with it Laravel's toOthers() leaves this browser out. */
    socketId: () => undefined,
};

export class ApiError extends Error {
    constructor(status, message) {
        super(message);
        this.status = status;
    }
}

async function request(method, path, data) {
    const headers = { Accept: 'application/json' };
    if (session.token) headers.Authorization = `Bearer ${session.token}`;
    if (data) headers['Content-Type'] = 'application/json';
    const socketId = method !== 'GET' && session.socketId();
    if (socketId) headers['X-Socket-ID'] = socketId;

    const body = data && JSON.stringify(data);
    const signal = AbortSignal.timeout(20_000);
    const response = await fetch(`/api${path}`, { method, headers, body, signal }).catch(() => {
        throw new ApiError(0, 'The server cannot be reached. Please try again.');
    });
    const answer = await response.json().catch(() => null); // a 204 has no body, a proxy's error is HTML
    if (!response.ok) throw new ApiError(response.status, reason(response, answer));
    return answer;
}

function reason(response, answer) {
    if (response.status === 429) {
        const seconds = response.headers.get('Retry-After');
        return `That was too often. Please try again ${seconds ? `in ${seconds} s` : 'later'}.`;
    }
    const [first] = Object.values(answer?.errors ?? {}).flat();
    return first || answer?.message || `The server answered with an error (${response.status}).`;
}

const room = (id) => `/chat/rooms/${id}`;

export const login = (email, password) => request('POST', '/auth/login', { email, password });
export const logout = () => request('POST', '/auth/logout');
export const me = () => request('GET', '/auth/user');
export const people = () => request('GET', '/chat/people');
export const rooms = () => request('GET', '/chat/rooms');
export const startChat = (user_id) => request('POST', '/chat/rooms', { user_id });
export const startGroup = (subject, user_ids) => request('POST', '/chat/rooms', { type: 'group', subject, user_ids });
export const mute = (id, is_muted) => request('PATCH', room(id), { is_muted });
export const addPeople = (id, user_ids) => request('POST', `${room(id)}/participants`, { user_ids });
export const leave = (id) => request('DELETE', `${room(id)}/participants`);
export const removePerson = (id, user_id) => request('DELETE', `${room(id)}/participants/${user_id}`);
export const send = (id, content) => request('POST', `${room(id)}/messages`, { content });
export const markRead = (id, message_id) => request('POST', `${room(id)}/read`, { message_id });

/** The newest page, or the one that `next` of the page before links to. */
export function messages(id, next) {
    // Only the query of the link: behind a proxy its host can be one that is not ours.
    return request('GET', `${room(id)}/messages${next ? new URL(next, location.href).search : ''}`);
}
