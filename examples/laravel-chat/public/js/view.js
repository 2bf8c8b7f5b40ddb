// The DOM of the page. What people wrote only ever gets into it as text, never as HTML.

export const $ = (id) => document.getElementById(id);

const FIVE_MINUTES = 5 * 60_000;
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'short' });
const shortDay = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const longDay = new Intl.DateTimeFormat('en-GB', { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric' });
const list = new Intl.ListFormat('en-GB');

function dayOf(date) {
    const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(date).setHours(0, 0, 0, 0)) / 86_400_000);
    return ['Today', 'Yesterday'][days] ?? longDay.format(date);
}

function lastSeen({ online, last_seen_at }) {
    if (online) return 'online';
    if (!last_seen_at) return '';
    const at = new Date(last_seen_at);
    const day = { Today: `at ${clock.format(at)}`, Yesterday: 'yesterday' }[dayOf(at)] ?? `on ${shortDay.format(at)}`;
    return `last seen ${day}`;
}

const fromTemplate = (name) => $(`${name}-template`).content.firstElementChild.cloneNode(true);

function setAvatar(node, id, name = '') {
    const words = name.trim().split(/\s+/);
    const initials = [words[0], words.length > 1 ? words.at(-1) : ''].map((word) => [...word][0] ?? '');
    node.textContent = initials.join('').toUpperCase();
    node.style.setProperty('--hue', (id * 137) % 360); // the golden angle keeps neighbours apart
}

/**
 * Brings a list's nodes in line with `items`. Nodes that stay are not replaced, so that
 * they keep the focus, and so that a screen reader reads out a new message only.
 */
function sync(parent, items, create, update = () => {}) {
    const nodes = new Map([...parent.children].map((node) => [node.dataset.key, node]));
    const wanted = new Set(items.map(({ id }) => String(id)));
    for (const [key, node] of nodes) if (!wanted.has(key)) node.remove();
    items.forEach((item, index) => {
        const node = nodes.get(String(item.id)) ?? create(item);
        node.dataset.key = item.id;
        update(node, item, items[index - 1]);
        if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
    });
}

// Screens

export function showLogin(message = '') {
    for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
    $('starting').hidden = $('app').hidden = true;
    $('welcome').hidden = false;
    $('login-error').textContent = message;
    $('email').focus();
    document.title = 'Chat';
}

export function showApp(me) {
    $('starting').hidden = $('welcome').hidden = true;
    $('app').hidden = false;
    $('password').value = $('login-error').textContent = '';
    $('my-name').textContent = me.name;
}

export function showConnection(status) {
    const text = { connected: 'Connected', connecting: 'Connecting' }[status];
    $('connection').dataset.state = text ? status : 'unavailable';
    $('connection').textContent = text ?? 'No connection';
}

let noticeTimer;
export function notify(message) {
    $('notice').hidden = false;
    $('notice').textContent = message;
    clearTimeout(noticeTimer);
    noticeTimer = setTimeout(() => { $('notice').hidden = true; }, 8000);
}

export const showError = (id) => (message) => { $(id).textContent = message; };

// The list of chats

export function showRooms(rooms, openId, me) {
    $('no-rooms').hidden = rooms.length > 0;
    sync($('rooms'), rooms, () => fromTemplate('room'), (node, room) => {
        const [link] = node.children;
        const part = (name) => link.querySelector(name);
        const last = room.latest_message;
        link.href = `#chat-${room.id}`;
        link.dataset.roomId = room.id;
        link.toggleAttribute('data-muted', room.is_muted);
        room.id === openId ? link.setAttribute('aria-current', 'true') : link.removeAttribute('aria-current');
        showRoomAvatar(part('.avatar'), room, me);
        part('.room-name').textContent = room.name ?? 'Empty chat';
        part('.room-preview').textContent = last ? preview(last, room, me) : 'No messages yet';
        const at = last && new Date(last.created_at);
        part('time').textContent = at ? (dayOf(at) === 'Today' ? clock : shortDay).format(at) : '';
        part('.unread')?.remove();
        if (room.unread_count > 0) link.append(Object.assign(fromTemplate('unread'), { textContent: room.unread_count }));
    });
    const unread = rooms.reduce((sum, room) => sum + (room.is_muted ? 0 : room.unread_count), 0);
    document.title = unread > 0 ? `(${unread}) Chat` : 'Chat';
}

function preview({ user_id, type, content, sender }, room, me) {
    const text = { image: 'Image', file: 'File' }[type] ?? content;
    if (user_id === me.id) return `You: ${text}`;
    return user_id !== null && room.type === 'group' ? `${sender.name}: ${text}` : text;
}

function showRoomAvatar(node, room, me) {
    const other = room.participants.find(({ id }) => id !== me.id);
    // A group's hue is its own, a private chat's that of the other person everywhere else.
    setAvatar(node, room.type === 'group' ? room.id + 40 : other?.id ?? 0, room.name ?? '');
    node.classList.toggle('square', room.type === 'group');
}

// The open chat

export function showRoom(room, me) {
    $('app').classList.toggle('in-room', Boolean(room));
    $('conversation').hidden = !room;
    if (!room) return;
    $('room-title').textContent = room.name ?? 'Empty chat';
    showRoomAvatar($('room-avatar'), room, me);
    $('group-button').hidden = room.type !== 'group';
    $('mute').setAttribute('aria-pressed', String(room.is_muted));
}

export function showHere(people, me) {
    sync($('here'), people, ({ id, name }) => {
        const node = Object.assign(document.createElement('li'), { textContent: name });
        node.dataset.userId = id;
        node.classList.toggle('me', id === me.id);
        return node;
    });
}

/** When the other person was last seen, who is not to be seen here. */
export function showSeen(person) {
    const seen = person && lastSeen(person);
    $('seen').textContent = seen ? `${person.name} ${person.online ? 'is' : 'was'} ${seen}` : '';
}

export function showTyping(names) {
    const who = names.length > 3 ? 'Several people' : list.format(names);
    $('typing').textContent = names.length ? `${who} ${names.length > 1 ? 'are' : 'is'} typing…` : '';
}

export function showMessages(messages, { me, others, hasOlder, isLoading }) {
    const history = $('history');
    const [first, last] = [$('messages').firstElementChild, $('messages').lastElementChild];
    const fromEnd = history.scrollHeight - history.scrollTop;

    $('messages').ariaLive = isLoading ? 'off' : 'polite';
    $('no-messages').hidden = isLoading || messages.length > 0;
    $('older').hidden = !hasOlder;
    sync($('messages'), messages, createMessage, (node, message, previous) => {
        const at = new Date(message.created_at);
        const isNewDay = !previous || dayOf(new Date(previous.created_at)) !== dayOf(at);
        const continues = !isNewDay && previous.user_id === message.user_id
            && at - new Date(previous.created_at) < FIVE_MINUTES;
        node.dataset.day = isNewDay ? dayOf(at) : '';
        node.classList.toggle('continued', continues);
        node.classList.toggle('own', message.user_id === me.id);
        if (message.user_id === me.id) showReceipt(node.querySelector('.receipt'), message, others);
    });

    const newLast = $('messages').lastElementChild;
    if (isAtEnd || newLast !== last && newLast?.classList.contains('own')) scrollToEnd();
    else if ($('messages').firstElementChild !== first) history.scrollTop = history.scrollHeight - fromEnd;
    else if (newLast !== last) $('latest').hidden = false;
}

function createMessage({ id, user_id, content, type, created_at, sender }) {
    const node = fromTemplate('message');
    const part = (name) => node.querySelector(name);
    node.dataset.messageId = id;
    node.classList.toggle('system', user_id === null);
    part('.author').textContent = sender.name;
    setAvatar(part('.avatar'), user_id ?? 0, sender.name);
    Object.assign(part('time'), { dateTime: created_at, textContent: clock.format(new Date(created_at)) });
    const isLink = type !== 'text' && /^https?:\/\//i.test(content); // never javascript:
    node.classList.toggle('link', isLink);
    if (isLink) {
        const target = { href: content, textContent: content, target: '_blank', rel: 'noopener noreferrer' };
        part('.content').append(Object.assign(document.createElement('a'), target));
    } else {
        part('.content').textContent = content;
    }
    return node;
}

function showReceipt(node, message, others) {
    // As strings, because a Date has no microseconds and would take two messages for one.
    const isRead = message.read_at
        || others.length > 0 && others.every(({ last_read_at: at }) => at && at >= message.created_at);
    node.dataset.state = isRead ? 'read' : 'sent';
    node.setAttribute('aria-label', isRead ? 'Read' : 'Sent');
}

let isAtEnd = true;
export function scrollToEnd() {
    $('history').scrollTop = $('history').scrollHeight;
    $('latest').hidden = isAtEnd = true;
}
$('history').addEventListener('scroll', ({ target }) => {
    isAtEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 60;
    if (isAtEnd) $('latest').hidden = true;
});
// A phone's keyboard and a growing text box take room from the messages.
new ResizeObserver(() => { if (isAtEnd) scrollToEnd(); }).observe($('history'));

export function fitComposer() {
    const { style } = $('content');
    style.height = 'auto';
    style.height = `${$('content').scrollHeight + 2}px`; // and its border
}

// Dialogs

export function showPeople(parent, people, template) {
    sync($(parent), people, ({ id, name }) => {
        const node = fromTemplate(template);
        node.querySelector('.name').textContent = name;
        setAvatar(node.querySelector('.avatar'), id, name);
        for (const button of node.querySelectorAll('button')) button.dataset.userId = id;
        for (const checkbox of node.querySelectorAll('input')) checkbox.value = id;
        return node;
    }, (node, person) => {
        for (const seen of node.querySelectorAll('.seen')) seen.textContent = lastSeen(person);
    });
}

export function showMembers(people, me, ownerId) {
    showPeople('members', people, 'member');
    for (const button of $('members').querySelectorAll('button')) {
        button.hidden = ownerId !== me.id || Number(button.dataset.userId) === me.id;
    }
}

export const checked = (parent) => [...$(parent).querySelectorAll(':checked')].map(({ value }) => Number(value));
