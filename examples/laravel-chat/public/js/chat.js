import Echo from 'laravel-echo';
import * as api from './api.js';
import * as view from './view.js';

const { $ } = view;
const { session } = api;

let me;
let echo;
let rooms = [];
let open = null; // the open chat: { id, messages, olderPage, … }
let leaving = null; // the id of a room that is left by a click in this page
let online = null; // the ids of everybody who has the chat open; null while that is not known
const wentAt = new Map(); // user id => when this page saw that person go
const listening = new Set(); // the ids of the rooms whose events come
const drafts = new Map(); // room id => what was typed there and is not sent

const find = (id) => rooms.find((room) => room.id === id);

// Session

async function enter(user) {
    if (me?.id !== user.id) drafts.clear();
    me = user;
    view.showApp(me);
    connect();
    await refresh().catch(fail);
}

function signedOut(message = 'Your session has ended. Please sign in again.') {
    session.token = null;
    echo?.disconnect();
    clearTimeout(refreshTimer);
    [echo, open, rooms, online] = [null, null, [], null];
    wentAt.clear();
    listening.clear();
    view.showLogin(message);
}

function fail(error, show = view.notify) {
    if (!(error instanceof api.ApiError)) throw error;
    if (error.status === 401) signedOut();
    else show(error.message);
}

function connect() {
    const { key, host, port, scheme } = window.reverb;
    echo = new Echo({
        broadcaster: 'reverb',
        key,
        wsHost: host,
        wsPort: port,
        wssPort: port,
        forceTLS: scheme === 'https',
        enabledTransports: ['ws', 'wss'],
        authEndpoint: '/api/broadcasting/auth',
        auth: { headers: { Authorization: `Bearer ${session.token}`, Accept: 'application/json' } },
    });
    session.socketId = () => (echo?.connectionStatus() === 'connected' ? echo.socketId() : undefined);
    echo.connector.onConnectionChange(view.showConnection);
    joinOnline();
    watch(echo.private(`App.Models.User.${me.id}`)).listen('.chat.started', refreshSoon);
}

/**
 * Events are not repeated. Those before the subscription, be it the first or the one
 * after a lost connection, are made up for by loading what is stored.
 */
function watch(channel, onRefusal = fail) {
    return channel.subscribed(refreshSoon).error(({ type, status }) => {
        const error = new api.ApiError(status, `This page may not listen to ${channel.name} (${status}).`);
        error.isRemoval = type === 'Unsubscribed';
        onRefusal(error);
    });
}

// Rooms

let refreshTimer;
function refreshSoon() {
    clearTimeout(refreshTimer); // many channels are subscribed at once
    refreshTimer = setTimeout(() => refresh().catch(fail), 200);
}

let refreshes = 0;
let latestRefresh;
const refresh = () => (latestRefresh = load(++refreshes));

async function load(turn) {
    const before = rooms;
    const { data } = await api.rooms();
    if (turn !== refreshes) return latestRefresh;
    if (!echo) return;
    const lost = before.filter(({ id }) => id !== leaving && !data.some((room) => room.id === id));
    rooms = data;
    listen();
    render();
    for (const { name } of lost) view.notify(`You are no longer in “${name}”.`);
    const opened = open;
    await followAddress();
    if (open && open === opened) await loadMessages();
}

function listen() {
    for (const id of listening) if (!find(id)) stopListening(id);
    for (const { id } of rooms) {
        if (listening.has(id)) continue;
        listening.add(id);
        watch(echo.private(`chat.${id}`), (error) => refused(id, error).catch(fail))
            .listen('.message.sent', ({ message }) => receive(message))
            .listen('.messages.read', ({ user, last_read_at }) => setReadMark(id, user.id, last_read_at));
    }
}

function stopListening(id) {
    listening.delete(id);
    echo.leaveChannel(`private-chat.${id}`);
}

/** I may not listen to a room. Mostly somebody has removed me, now or while the connection was lost. */
async function refused(id, error) {
    if (error.status !== 403) throw error;
    await refresh(); // takes the room away and says so
    if (!find(id)) return;
    if (!error.isRemoval) throw error;
    stopListening(id); // removed, and already back
    listen();
}

function render() {
    const room = open && find(open.id);
    view.showRooms(rooms, open?.id, me);
    view.showRoom(room, me);
    showPresence();
    if (!room) return;
    view.showMessages([...open.messages.values()].sort((a, b) => a.id - b.id), {
        me,
        others: room.participants.filter(({ id }) => id !== me.id),
        hasOlder: Boolean(open.olderPage),
        isLoading: open.isLoading,
    });
}

function put(room) {
    rooms = find(room.id) ? rooms.map((old) => (old.id === room.id ? room : old)) : [room, ...rooms];
    listen();
    render();
}

async function goTo(room) {
    $('new-chat').close();
    put(room);
    location.hash = `chat-${room.id}`;
    await followAddress();
}

/** Which room is open is in the address: the browser's back button and a reload keep it. */
async function followAddress() {
    const id = Number(/^#chat-(\d+)$/.exec(location.hash)?.[1]);
    const room = find(id);
    if (open?.id === room?.id) return;
    const left = open;
    // Not echo.leave(), which would leave the private channel of that name as well.
    if (left) echo.leaveChannel(`presence-chat.${left.id}`);
    $('group').close();
    open = room ? { id, messages: new Map(), here: new Map(), typing: new Map(), isLoading: true } : null;
    $('messages').replaceChildren();
    view.scrollToEnd();
    view.showError('composer-error')('');
    render();
    if (!open) return document.querySelector(`[data-room-id="${left.id}"]`)?.focus();
    joinPresence(open);
    $('content').value = drafts.get(id) ?? '';
    view.fitComposer();
    if (matchMedia('(min-width: 760px)').matches) $('content').focus(); // on a phone it would open the keyboard
    await loadMessages();
}

// Messages

/** Whoever has just been removed from a room may not load it any more; load() says so. */
function unlessRemoved(error) {
    if (error.status !== 403) throw error;
}

async function loadMessages(page) {
    const current = open;
    if (page) current.isLoading = true;
    try {
        const answer = await api.messages(current.id, page).catch(unlessRemoved);
        if (!answer || current !== open) return;
        const { data, links } = answer;
        const oldest = data.at(-1);
        // A newest page that does not reach what is known leaves a gap: load on from there.
        const hasGap = !page && oldest && !current.messages.has(oldest.id);
        if (hasGap) for (const id of current.messages.keys()) if (id < oldest.id) current.messages.delete(id);
        if (page || hasGap) current.olderPage = links.next;
        for (const message of data) current.messages.set(message.id, message);
        render(); // still as loading: a whole page is not to be read out
        await markRead();
    } finally {
        current.isLoading = false;
        if (current === open) render();
    }
}

function receive(message) {
    const room = find(message.chat_id);
    if (!room) return;
    const isNews = message.id > (room.latest_message?.id ?? 0);
    if (isNews) {
        room.latest_message = message;
        rooms = [room, ...rooms.filter((other) => other !== room)];
    }
    if (open?.id === room.id) {
        open.messages.set(message.id, message);
        stopTyping(open, message.user_id);
    }
    const isSystem = message.user_id === null;
    const isSeen = open?.id === room.id && isLookedAt();
    if (isNews && !isSystem && !isSeen && message.user_id !== me.id) room.unread_count++;
    render();
    if (isSystem) refreshSoon(); // somebody came or left
    markRead().catch(fail);
}

/** What others wrote, of the open room's messages that are here. */
const theirs = () => [...open.messages.values()].filter(({ user_id }) => user_id !== null && user_id !== me.id);

const isLookedAt = () => document.visibilityState === 'visible' && document.hasFocus();

async function markRead() {
    if (!open || !isLookedAt()) return;
    const { id } = open;
    const newest = theirs().reduce((a, b) => (b.id > (a?.id ?? 0) ? b : a), null);
    const mine = find(id)?.participants.find((person) => person.id === me.id);
    if (!newest || !mine || open.marking >= newest.id) return;
    if (mine.last_read_at >= newest.created_at) { // another one came in the second of the mark
        if (find(id).unread_count > 0) setReadMark(id, me.id, mine.last_read_at);
        return;
    }
    open.marking = newest.id; // in this moment, so that two events do not ask twice
    const current = open;
    try {
        const answer = await api.markRead(id, newest.id).catch(unlessRemoved);
        if (answer) setReadMark(id, answer.data.user_id, answer.data.last_read_at);
    } finally {
        current.marking = 0;
    }
}

function setReadMark(roomId, userId, at) {
    const room = find(roomId);
    const person = room?.participants.find(({ id }) => id === userId);
    if (!person) return;
    if (!(person.last_read_at > at)) person.last_read_at = at;
    if (userId === me.id) countUnread(room, person.last_read_at);
    render();
}

/** The latest message may be newer than my mark and yet my own, or a line of the system's: neither is unread. */
function countUnread(room, mark) {
    const isNewer = ({ created_at }) => created_at > mark;
    const latest = room.latest_message;
    if (!latest || !isNewer(latest)) room.unread_count = 0;
    else if (open?.id === room.id && open.messages.has(latest.id)) room.unread_count = theirs().filter(isNewer).length;
    else refreshSoon(); // the server knows
}

function setDraft(id, text) {
    drafts.set(id, text);
    if (open?.id !== id) return;
    $('content').value = text;
    view.fitComposer();
}

let sending = Promise.resolve(); // one at a time: they are stored in the order they were typed
function submit() {
    const id = open?.id;
    const content = $('content').value.trim();
    if (!id || !content) return;
    setDraft(id, '');
    view.showError('composer-error')('');
    sending = sending.then(() => send(id, content));
}

async function send(id, content) {
    try {
        const { data } = await api.send(id, content);
        receive(data);
    } catch (error) {
        setDraft(id, [content, drafts.get(id)].filter(Boolean).join('\n')); // before what was typed meanwhile
        fail(error, open?.id === id ? view.showError('composer-error') : view.notify);
    }
}

// Who is online, who is here, who is typing

/** Joined by every open page; with it Resound knows whose connection this is. */
function joinOnline() {
    watch(echo.join('online'))
        .here((people) => setOnline(people.map(({ id }) => id)))
        .joining(({ id }) => setOnline([...online, id]))
        .leaving(({ id }) => {
            wentAt.set(id, new Date().toISOString());
            setOnline([...online].filter((other) => other !== id));
        });
}

function setOnline(ids) {
    online = new Set(ids);
    showPresence();
}

/** What the channel says is newer than what the API said. */
function withPresence(person) {
    const at = wentAt.get(person.id);
    return {
        ...person,
        online: online?.has(person.id) ?? person.online,
        last_seen_at: at > (person.last_seen_at ?? '') ? at : person.last_seen_at,
    };
}

function joinPresence(room) {
    room.channel = echo.join(`chat.${room.id}`)
        .here((people) => {
            room.here = new Map(people.map((person) => [person.id, person]));
            showPresence();
        })
        .joining((person) => {
            room.here.set(person.id, person);
            showPresence();
        })
        .leaving((person) => {
            room.here.delete(person.id);
            stopTyping(room, person.id);
        })
        // Who it is says the server: what is in a whisper can be anything.
        .listenForWhisper('typing', (_, { user_id }) => {
            const id = Number(user_id);
            clearTimeout(room.typing.get(id));
            room.typing.set(id, setTimeout(() => stopTyping(room, id), 3000));
            showPresence();
        });
}

function stopTyping(room, userId) {
    clearTimeout(room.typing.get(userId));
    room.typing.delete(userId);
    showPresence();
}

function showPresence() {
    view.showHere([...(open?.here.values() ?? [])], me);
    const room = find(open?.id);
    const others = room?.participants.filter(({ id }) => id !== me.id) ?? [];
    view.showTyping(others.filter(({ id }) => open.typing.has(id)).map(({ name }) => name));
    const isElsewhere = room?.type === 'private' && others[0] && !open.here.has(others[0].id);
    view.showSeen(isElsewhere ? withPresence(others[0]) : null);
    if (room?.type === 'group') view.showMembers(room.participants.map(withPresence), me, room.owner_id);
}

function typed() {
    drafts.set(open.id, $('content').value);
    view.fitComposer();
    const isHere = open.here.has(me.id); // a whisper needs the subscription
    if (!isHere || Date.now() - (open.whisperedAt ?? 0) < 1000) return;
    open.whisperedAt = Date.now();
    open.channel.whisper('typing', {});
}

// What a person does

/** Calls an action, again only when it is done, and says in `show` why it failed. */
function on(target, type, action, show = view.notify) {
    let isRunning = false;
    target.addEventListener(type, async (event) => {
        if (type === 'submit') event.preventDefault();
        if (isRunning) return;
        isRunning = true;
        try {
            await action(event);
        } catch (error) {
            fail(error, show);
        } finally {
            isRunning = false;
        }
    });
}

on($('login'), 'submit', async () => {
    const { token, user } = await api.login($('email').value, $('password').value);
    session.token = token;
    await enter(user);
}, view.showError('login-error'));

const accounts = $('accounts'); // only where APP_ENV is local
if (accounts) on(accounts, 'click', ({ target }) => {
    const button = target.closest('button');
    if (!button) return;
    $('email').value = button.dataset.email;
    $('password').value = 'password';
});

on($('sign-out'), 'click', async () => {
    await api.logout().catch(() => {}); // where the server is not reached, the token is forgotten nevertheless
    session.token = null;
    location.replace(location.pathname + location.search); // nothing of this person stays in the page
});

on($('composer'), 'submit', submit);
on($('content'), 'input', typed);
$('content').addEventListener('keydown', (event) => {
    // isComposing: Enter also ends the input of a Chinese or Japanese word.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
});

on($('older'), 'click', () => loadMessages(open.olderPage));
on($('latest'), 'click', view.scrollToEnd);
on($('mute'), 'click', async () => put((await api.mute(open.id, !find(open.id).is_muted)).data));

const showNewChatError = view.showError('new-chat-error');
on($('new-chat-button'), 'click', async () => {
    const { data } = await api.people();
    view.showPeople('people', data.map(withPresence), 'person');
    view.showPeople('group-people', data, 'choice');
    showNewChatError('');
    $('new-chat').showModal();
});
on($('people'), 'click', async ({ target }) => {
    const button = target.closest('[data-user-id]');
    if (button) await goTo((await api.startChat(Number(button.dataset.userId))).data);
}, showNewChatError);
on($('new-group'), 'submit', async () => {
    await goTo((await api.startGroup($('group-subject').value, view.checked('group-people'))).data);
    $('new-group').reset();
}, showNewChatError);

const showGroupError = view.showError('group-error');
async function showGroup() {
    const { data } = await api.people();
    const { participants } = find(open.id);
    const isIn = ({ id }) => participants.some((person) => person.id === id);
    view.showPeople('addable', data.filter((person) => !isIn(person)), 'choice');
    $('add-people').hidden = data.every(isIn);
    showGroupError('');
}
on($('group-button'), 'click', async () => {
    await showGroup();
    $('group').showModal();
});
on($('add-people'), 'submit', async () => {
    put((await api.addPeople(open.id, view.checked('addable'))).data);
    refreshSoon(); // the system message about it
    await showGroup();
}, showGroupError);
on($('members'), 'click', async ({ target }) => {
    const button = target.closest('[data-user-id]');
    if (!button) return;
    await api.removePerson(open.id, Number(button.dataset.userId));
    await refresh();
    await showGroup();
}, showGroupError);
on($('leave'), 'click', async () => {
    leaving = open.id;
    try {
        await api.leave(leaving);
        location.hash = '';
        await refresh();
    } finally {
        leaving = null;
    }
}, showGroupError);

window.addEventListener('hashchange', () => followAddress().catch(fail));
window.addEventListener('focus', () => markRead().catch(fail));
document.addEventListener('visibilitychange', () => markRead().catch(fail));

function start() {
    if (!session.token) return view.showLogin();
    api.me().then(({ data }) => enter(data)).catch((error) => fail(error, view.showLogin));
}

// Without pusher-js the page goes on saying that a script is missing.
window.chatHasStarted = Boolean(window.Pusher);
if (window.chatHasStarted) start();
