<!doctype html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1, interactive-widget=resizes-content">
    <meta name="color-scheme" content="light dark">
    <meta name="theme-color" content="#ffffff" media="(prefers-color-scheme: light)">
    <meta name="theme-color" content="#14191e" media="(prefers-color-scheme: dark)">
    <title>Chat</title>
    <link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='8' fill='%230b6b68'/%3E%3Cg fill='none' stroke='%23fff' stroke-width='2.6' stroke-linecap='round'%3E%3Cpath d='M14 12a5.5 5.5 0 0 1 0 8M18.5 8a11 11 0 0 1 0 16'/%3E%3C/g%3E%3Ccircle cx='10' cy='16' r='2.4' fill='%23fff'/%3E%3C/svg%3E">
    <link rel="stylesheet" href="{{ asset('css/chat.css') }}">

    {{-- What a browser may know: the key, never the secret. --}}
    <script>
        window.reverb = {{ Illuminate\Support\Js::from([
            'key' => config('broadcasting.connections.reverb.key'),
            'host' => config('broadcasting.connections.reverb.options.host'),
            'port' => (int) config('broadcasting.connections.reverb.options.port'),
            'scheme' => config('broadcasting.connections.reverb.options.scheme'),
        ]) }};
    </script>

    {{-- Where a script does not come, the ones below do not run; this one says so. --}}
    <script>
        function scriptIsMissing() {
            const notice = document.getElementById('starting');
            if (!notice) return addEventListener('DOMContentLoaded', scriptIsMissing);
            if (window.chatHasStarted) return;
            notice.textContent = 'The chat cannot start: a script is missing. It needs laravel-echo and pusher-js from ' +
                'cdn.jsdelivr.net; if something blocks that host, such as a firewall or a content blocker, allow it and ' +
                'reload the page.';
        }
        setTimeout(scriptIsMissing, 15_000); // a host that does not answer at all
    </script>

    {{-- Your own application installs both with npm; `import Echo from 'laravel-echo'` stays the same. --}}
    <script type="importmap">
        {
            "imports": { "laravel-echo": "https://cdn.jsdelivr.net/npm/laravel-echo@2.5.0/dist/echo.js" },
            "integrity": {
                "https://cdn.jsdelivr.net/npm/laravel-echo@2.5.0/dist/echo.js": "sha384-is3IVf3TFSwpPBylMQ8a0jmYUb01l9aMexRjmyIV21FCYBsc7J+iPl1tVF//wA/a"
            }
        }
    </script>
    <script defer src="https://cdn.jsdelivr.net/npm/pusher-js@8.6.0/dist/web/pusher.min.js" integrity="sha384-yz6oLe92Sren05O3WPhu8DK05E9PEkh7kTQJ819acmwKwcCMwJXGu9Kta5wYhfaJ" crossorigin="anonymous" onerror="scriptIsMissing()"></script>
    <script type="module" src="{{ asset('js/chat.js') }}" onerror="scriptIsMissing()"></script>
</head>
<body>

<svg class="sprite" aria-hidden="true">
    <symbol id="icon-logo" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="var(--brand)" stroke="none"/><path stroke="#fff" stroke-width="2.6" d="M14 12a5.5 5.5 0 0 1 0 8M18.5 8a11 11 0 0 1 0 16"/><circle cx="10" cy="16" r="2.4" fill="#fff" stroke="none"/></symbol>
    <symbol id="icon-back" viewBox="0 0 24 24"><path d="m15 5-7 7 7 7"/></symbol>
    <symbol id="icon-bell" viewBox="0 0 24 24"><path d="M6 9.5a6 6 0 0 1 12 0c0 5.5 2 6.5 2 6.5H4s2-1 2-6.5M10 20a2.2 2.2 0 0 0 4 0"/></symbol>
    <symbol id="icon-bell-off" viewBox="0 0 24 24"><path d="M18 12.5a16 16 0 0 1 0-3 6 6 0 0 0-9.6-4.8M6.2 8A6 6 0 0 0 6 9.5C6 15 4 16 4 16h12M10 20a2.2 2.2 0 0 0 4 0M3 3l18 18"/></symbol>
    <symbol id="icon-close" viewBox="0 0 24 24"><path d="m6 6 12 12M18 6 6 18"/></symbol>
    <symbol id="icon-down" viewBox="0 0 24 24"><path d="M12 5v14m-6-6 6 6 6-6"/></symbol>
    <symbol id="icon-new" viewBox="0 0 24 24"><path d="M11 5H6a2 2 0 0 0-2 2v11a2 2 0 0 0 2 2h11a2 2 0 0 0 2-2v-5M17.5 3.7a2 2 0 0 1 2.8 2.8L12 14.8l-3.8 1 1-3.8z"/></symbol>
    <symbol id="icon-people" viewBox="0 0 24 24"><circle cx="9" cy="8" r="3.5"/><path d="M2.5 20a6.5 6.5 0 0 1 13 0M15.5 4.8a3.5 3.5 0 0 1 0 6.4M18 14.6a6.5 6.5 0 0 1 3.5 5.4"/></symbol>
    <symbol id="icon-send" viewBox="0 0 24 24"><path d="M4.5 12h7M4.5 12 3 4.5 21 12 3 19.5z"/></symbol>
    <symbol id="icon-sign-out" viewBox="0 0 24 24"><path d="M10 4H6a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h4M15.5 16.5 20 12l-4.5-4.5M20 12H9.5"/></symbol>
    <symbol id="icon-link" viewBox="0 0 24 24"><path d="M10 14a4 4 0 0 0 6 .4l3-3A4 4 0 0 0 13.4 5.6l-1.2 1.2M14 10a4 4 0 0 0-6-.4l-3 3a4 4 0 0 0 5.6 5.8l1.2-1.2"/></symbol>
    <symbol id="icon-ticks" viewBox="0 0 20 14"><path d="m2 7.5 3.5 3.5L13 3"/><path class="second" d="m9.5 10.3.7.7L17.7 3"/></symbol>
</svg>

<p id="starting" role="status">Loading the chat…</p>

<main id="welcome" hidden>
    {{-- POST, because without the script a form's GET would put the password into the address. --}}
    <form id="login" class="card" method="post">
        <svg class="logo"><use href="#icon-logo"/></svg>
        <h1>Sign in to the chat</h1>
        <p class="muted">Use two windows to be two people, and see every message, tick and keystroke arrive.</p>

        <label for="email">Email</label>
        <input id="email" name="email" type="email" autocomplete="username" required>
        <label for="password">Password</label>
        <input id="password" name="password" type="password" autocomplete="current-password" required>

        <p id="login-error" class="error" role="alert"></p>
        <button class="primary">Sign in</button>

        @env('local')
        <fieldset id="accounts">
            <legend>The seeder’s accounts, each with the password “password”</legend>
            @foreach (['Ana', 'Ben', 'Carla'] as $name)
                <button type="button" data-email="{{ strtolower($name) }}@example.test"><b>{{ $name }}</b> {{ strtolower($name) }}@example.test</button>
            @endforeach
        </fieldset>
        @endenv
    </form>
</main>

<div id="app" hidden>
    <aside aria-label="Chats">
        <header>
            <svg class="logo"><use href="#icon-logo"/></svg>
            <div class="who">
                <h1 id="my-name"></h1>
                <p id="connection" role="status" data-state="connecting">Connecting</p>
            </div>
            <button id="new-chat-button" class="icon" aria-label="New chat" title="New chat"><svg><use href="#icon-new"/></svg></button>
            <button id="sign-out" class="icon" aria-label="Sign out" title="Sign out"><svg><use href="#icon-sign-out"/></svg></button>
        </header>
        <ul id="rooms"></ul>
        <p id="no-rooms" class="empty" hidden><b>No chats yet</b> Start one with the button at the top.</p>
    </aside>

    <main id="conversation" aria-labelledby="room-title" hidden>
        <header>
            <a id="back" class="icon" href="#" aria-label="Back to the chats"><svg><use href="#icon-back"/></svg></a>
            <span id="room-avatar" class="avatar" aria-hidden="true"></span>
            <div class="who">
                <h2 id="room-title"></h2>
                <div id="presence"><ul id="here" aria-label="Here now"></ul><span id="seen"></span></div>
                <p id="waiting">Waiting for the connection…</p>
            </div>
            <button id="group-button" class="icon" aria-label="People in this group" title="People in this group"><svg><use href="#icon-people"/></svg></button>
            <button id="mute" class="icon" aria-label="Mute" title="Mute" aria-pressed="false">
                <svg class="off"><use href="#icon-bell"/></svg><svg class="on"><use href="#icon-bell-off"/></svg>
            </button>
        </header>

        <div id="history" tabindex="0" role="region" aria-label="Conversation">
            <button id="older" class="quiet" hidden>Show older messages</button>
            <p id="no-messages" class="empty" hidden><b>No messages yet</b> Write the first one.</p>
            <div id="messages" role="log" aria-label="Messages"></div>
        </div>

        <footer>
            <button id="latest" class="quiet" hidden><svg><use href="#icon-down"/></svg> New messages</button>
            <p id="typing" aria-live="polite"></p>
            <p id="composer-error" class="error" role="alert"></p>
            <form id="composer" method="post">
                <textarea id="content" rows="1" placeholder="Write a message" aria-label="Message" aria-describedby="composer-error" enterkeyhint="send"></textarea>
                <button id="send" class="primary icon" aria-label="Send" title="Send"><svg><use href="#icon-send"/></svg></button>
            </form>
        </footer>
    </main>

    <div id="no-conversation"><p class="empty"><b>No chat is open</b> Choose one on the left, or start a new one.</p></div>
</div>

<dialog id="new-chat" aria-labelledby="new-chat-title" closedby="any">
    <header>
        <h2 id="new-chat-title">New chat</h2>
        <form method="dialog"><button class="icon" aria-label="Close"><svg><use href="#icon-close"/></svg></button></form>
    </header>
    <p id="new-chat-error" class="error" role="alert"></p>
    <h3>Write to one person</h3>
    <ul id="people" class="people"></ul>
    <form id="new-group" method="post">
        <h3>Or start a group</h3>
        <label for="group-subject">Subject</label>
        <input id="group-subject" name="subject" maxlength="120" autocomplete="off" required>
        <fieldset>
            <legend>People</legend>
            <div id="group-people" class="choices"></div>
        </fieldset>
        <button id="create-group" class="primary">Create group</button>
    </form>
</dialog>

<dialog id="group" aria-labelledby="group-title" closedby="any">
    <header>
        <h2 id="group-title">People in this group</h2>
        <form method="dialog"><button class="icon" aria-label="Close"><svg><use href="#icon-close"/></svg></button></form>
    </header>
    <p id="group-error" class="error" role="alert"></p>
    <ul id="members" class="people"></ul>
    <form id="add-people" method="post">
        <fieldset>
            <legend>Add people</legend>
            <div id="addable" class="choices"></div>
        </fieldset>
        <button class="primary">Add to the group</button>
    </form>
    <button id="leave" class="danger">Leave the group</button>
</dialog>

<p id="notice" role="alert" hidden></p>

<template id="room-template">
    <li><a>
        <span class="avatar" aria-hidden="true"></span>
        <span class="room-name" dir="auto"></span>
        <time></time>
        <span class="room-preview" dir="auto"></span>
        <svg class="muted-icon" role="img" aria-label="Muted"><use href="#icon-bell-off"/></svg>
    </a></li>
</template>

<template id="message-template">
    <article class="message">
        <span class="avatar" aria-hidden="true"></span>
        <span class="author"></span>
        <div class="bubble">
            <svg class="link-icon" aria-hidden="true"><use href="#icon-link"/></svg>
            <p class="content" dir="auto"></p>
            <time></time>
            <svg class="receipt" role="img"><use href="#icon-ticks"/></svg>
        </div>
    </article>
</template>

<template id="unread-template"><span class="unread" title="Unread messages"></span></template>
<template id="member-template"><li class="person"><span class="avatar" aria-hidden="true"></span><span class="name"></span><span class="seen"></span><button type="button" class="quiet">Remove</button></li></template>
<template id="person-template"><li><button type="button" class="person"><span class="avatar" aria-hidden="true"></span><span class="name"></span><span class="seen"></span></button></li></template>
<template id="choice-template"><label><input type="checkbox" name="user_ids"><span class="avatar" aria-hidden="true"></span><span class="name"></span></label></template>

</body>
</html>
