/// Returns once no reply of the server is on its way: it has noticed what happened to them.
export async function untilIdle(base) {
  for (;;) {
    const text = await (await fetch(`${base}/metrics`)).text();
    if (Number(/^toaster_streams (\d+)/m.exec(text)[1]) === 0) return;
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}
