"use strict";
// Frames go to faceattr, on the machine that serves this page, and come back as faces.

const FIRST_WAIT = 1000, LONGEST_WAIT = 60000, IDLE = 4000; // ms, ms, the code of a page that sent nothing

const asker = {
  // The address that faceattr prints for other machines carries a token, which every question repeats.
  async begin() {
    Object.assign(state, { socket: null, wait: FIRST_WAIT, isIdle: false });
    const answer = await fetch(`about${location.search}`);
    if (!answer.ok) return say(await answer.text());
    state.about = await answer.json();
    connect();
  },

  isReady() {
    if (state.isIdle) connect();
    return state.socket?.readyState === WebSocket.OPEN;
  },

  forget() {
    if (state.socket?.readyState === WebSocket.OPEN) state.socket.send("new");
  },

  ask(canvas, second) {
    canvas.toBlob(async blob => {
      if (!blob || blob.size + 8 > state.about.most_bytes) {
        state.isWaiting = false;
        return say("The picture is too large to be sent.");
      }
      const head = new DataView(new ArrayBuffer(8));
      head.setFloat64(0, second, true);
      state.sentAt = performance.now();
      if (state.socket.readyState === WebSocket.OPEN) state.socket.send(new Blob([head.buffer, blob]));
      else state.isWaiting = false;
    }, "image/jpeg", 0.88);
  },
};

function connect() {
  state.isIdle = false;
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}/look${location.search}`);
  socket.onmessage = event => { state.wait = FIRST_WAIT; take(JSON.parse(event.data)); };
  socket.onclose = event => {
    state.isWaiting = false;
    state.isIdle = event.code === IDLE; // `isReady` connects when there is something to look at
    if (state.isIdle) return;
    say(`faceattr does not answer, or has no room for another page; trying again in ${state.wait / 1000} s …`);
    setTimeout(connect, state.wait);
    state.wait = Math.min(2 * state.wait, LONGEST_WAIT);
  };
  socket.onopen = () => say("");
  state.socket = socket;
}
